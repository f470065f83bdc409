"""Map the top-level plugin shelves into the medlord_bench namespace; everything else is in pyproject.toml."""

from setuptools import find_packages, setup

SHELVES = ("generators", "metrics", "reports")
PACKAGE_DIR = {"medlord_bench": "medlord_bench"} | {f"medlord_bench.{shelf}": shelf for shelf in SHELVES}
# In a checkout the shelves are also linked below medlord_bench/ (for type checkers and editors): count them once.
LINKED = [f"{shelf}*" for shelf in SHELVES]

setup(
    package_dir=PACKAGE_DIR,
    packages=[
        name
        for package, folder in PACKAGE_DIR.items()
        for name in (
            package,
            *(f"{package}.{sub}" for sub in find_packages(folder, exclude=LINKED if package == folder else ())),
        )
    ],
)
