"""What is measured against what: each part beside its peer in the same run, with the results in docs/benchmarks.md."""

import tests.conftest  # noqa: F401  # makes the modules importable
