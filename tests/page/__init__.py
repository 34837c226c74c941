"""The built web page in a real browser. `make page-test` builds the page and runs these tests."""
