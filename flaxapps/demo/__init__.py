"""Demonstrations with real weights and real photos."""

from flaxapps.demo.photos import Classified as Classified
from flaxapps.demo.photos import DemoData as DemoData
from flaxapps.demo.photos import classify as classify
from flaxapps.demo.photos import compute_logits as compute_logits
from flaxapps.demo.photos import fetch_demo as fetch_demo
from flaxapps.demo.photos import run_demo as run_demo
from flaxapps.demo.photos import write_contact_sheet as write_contact_sheet
