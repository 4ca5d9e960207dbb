"""Tools for tests of this package and of plug-ins: test networks and conformance kits."""
