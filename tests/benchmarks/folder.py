"""Images per second from a folder of JPEG files, ours and in other libraries: `python -m tests.benchmarks.folder`.

ResNet50 with random weights over the photos of `flaxapps demo`, written again at the size of a web or a phone photo.
Every measurement is a process of its own; they take turns, and each has computed a first batch before its clock starts.
"""

import argparse
import importlib.util
import json
import tempfile
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.table import Table

from flaxapps.demo.photos import fetch_demo
from tests.benchmarks.loading import median, spread, take_turns
from tests.benchmarks.training import machine

COMMON = """
import json, os, pathlib, sys, time
os.environ["KERAS_BACKEND"] = "jax"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
folder = pathlib.Path(sys.argv[1])
batch = 32  # what Keras's and torch's loaders take by default or in most examples
"""
OURS = """
import flaxapps
from flaxapps.runtime.process import keep_freed_memory
from flaxapps.cli.options import usual_batch_size
from flaxapps.inference.predict import predict_batches
from flaxapps.photos.files import find_photos
from flaxapps.photos.photo import Resizing
from flaxapps.photos.reading import photo_format, read_photos
from flaxapps.resnet50 import ResNet50
keep_freed_memory()  # this and the rest as `flaxapps predict` does
network = ResNet50(weights=None)
model, variables = flaxapps.optimize(*network, mode="fast")

def classify(paths):
    batch = usual_batch_size()
    photos = read_photos(paths, photo_format(model), Resizing(draft=True), batch_size=batch)
    arrays = (arrays for _, arrays in photos)
    scores = predict_batches(model, variables, arrays, batch_size=batch, preprocess="caffe")
    return sum(len(rows[0]) for rows in scores)

paths = find_photos([folder]).photos
run = lambda count: classify(paths[:count])
"""
KERAS = """
import keras
photo = keras.Input((224, 224, 3))
network = keras.applications.ResNet50(weights=None)
network = keras.Model(photo, network(keras.applications.resnet50.preprocess_input(photo)))

def run(count):
    data = keras.utils.image_dataset_from_directory(
        folder, labels=None, image_size=(224, 224), batch_size=batch, shuffle=False, verbose=False
    )
    data = data.take(-(-count // batch)).prefetch(2)
    return len(network.predict(data, verbose=0))
"""
TORCH = """
import torch, torchvision
from torchvision.transforms import v2
network = torchvision.models.resnet50(weights=None).eval().to(memory_format=torch.channels_last)
look = v2.Compose([
    v2.Resize((224, 224)), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True),
    v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
])

def run(count):
    data = torchvision.datasets.ImageFolder(folder, look)
    data = torch.utils.data.Subset(data, range(count))
    done = 0
    with torch.inference_mode():
        for images, _ in torch.utils.data.DataLoader(data, batch, num_workers=2):
            done += len(network(images.to(memory_format=torch.channels_last)))
    return done
"""
MEASURE = """
run(batch)
start = time.perf_counter()
done = run(int(sys.argv[2]))
print(json.dumps({"seconds": time.perf_counter() - start, "photos": done}))
"""
PEERS = {
    "flaxapps": ((), OURS),
    "Keras on JAX": (("keras", "tensorflow"), KERAS),
    "torchvision": (("torch", "torchvision"), TORCH),
}


def write_photos(folder: Path, count: int, longer: int) -> None:
    """Writes JPEG files, (3:4), below one folder of a class."""
    photos = [Image.open(path).convert("RGB") for path in fetch_demo().photos]
    (folder / "photos").mkdir()
    for number in range(count):
        photo = photos[number % len(photos)].resize((longer, longer * 3 // 4), Image.Resampling.BICUBIC)
        photo.save(folder / "photos" / f"{number:04}.jpg", quality=90)


def main() -> None:
    """Measures, prints a table and writes JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.folder", description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=256, help="JPEG files in the folder (default 256)")
    parser.add_argument("--longer", type=int, nargs="+", default=[1024, 4000], help="their longer sides, in pixels")
    parser.add_argument("--repetitions", type=int, default=3, help="times each is measured (default 3)")
    parser.add_argument("--json", type=Path, help="a file for the figures")
    options = parser.parse_args()
    present = {
        name: COMMON + code + MEASURE
        for name, (modules, code) in PEERS.items()
        if all(map(importlib.util.find_spec, modules))
    }
    absent = sorted(PEERS.keys() - present.keys())
    table = Table(title="ResNet50 over a folder of JPEG files", caption=machine())
    for heading in ("longer side", "", "photos per second", "seconds", "times ours"):
        table.add_column(heading, justify="left" if not heading else "right")
    results = []
    for longer in options.longer:
        with tempfile.TemporaryDirectory() as folder:
            write_photos(Path(folder), options.photos, longer)
            commands = [(code, folder, str(options.photos)) for code in present.values()]
            runs = dict(zip(present, take_turns(options.repetitions, *commands), strict=True))
        for name, run in runs.items():
            assert all(each["photos"] == options.photos for each in run)
            speed = options.photos / median(run)
            results.append({"longer_side": longer, "peer": name, "photos_per_second": speed})
            ratio = f"{median(runs['flaxapps']) / median(run):.2f}"
            table.add_row(str(longer), name, f"{speed:.1f}", spread(run), ratio)
    console = Console()
    console.print(table)
    if absent:
        console.print(f"Not installed: {', '.join(absent)}")
    if options.json:
        options.json.write_text(json.dumps({"setting": machine(), "results": results}, indent=1))


if __name__ == "__main__":
    main()
