"""Routing inside the engines that people have; each module needs its engine installed."""
