"""Padding of convolutions that halve an image, as in Keras."""

from flaxapps.graph.symbolic import Node

Sides = tuple[tuple[int, int], tuple[int, int]]


def correct_pad(x: Node, kernel_size: int) -> Sides:
    """Computes the zeros around an image with which a "valid" window with strides of 2 is TensorFlow's "same".

    An image of free size is padded as one of even size, as in Keras; odd images of a network that was built for any
    size are therefore shifted by one pixel against a network that was built for their size.

    Args:
        x: Images, channels last.
        kernel_size: Height and width of the window; odd.

    Returns:
        ((top, bottom), (left, right)).
    """
    half = kernel_size // 2
    height, width = ((half - 1 + (0 if size is None else size % 2), half) for size in x.shape[1:3])
    return height, width
