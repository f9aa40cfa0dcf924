"""Drawing of networks as SVG."""
