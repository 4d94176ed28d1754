"""Install the built wheel into an empty environment, and run the demo there without the checkout.

make release-check runs it. `python tools/release_check.py dist --site FOLDER` takes what lit_credit
requires from a folder `site-packages`, and installs the wheel alone: faster, but it does not prove
that the requirements are complete.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

CHANGELOG = Path(__file__).parents[1] / "CHANGELOG.md"
EPOCHS = 5
TRAINED = ["BP", "DFA", "FA"]


def main() -> None:
    """Check the only wheel of a folder."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("dist", type=Path, help="folder with the wheel")
    parser.add_argument("--site", type=Path, help="folder with the packages of another environment")
    parser.add_argument("--tag", help="of the release, such as v0.1.0: must be that of the wheel")
    options = parser.parse_args()
    wheels = sorted(options.dist.glob("*.whl"))
    if len(wheels) != 1:
        sys.exit(f"{options.dist} holds {len(wheels)} wheels, expected one. Remove the others.")
    version = wheels[0].name.split("-")[1]
    if options.tag is not None:
        check_tag(options.tag, version)
    with tempfile.TemporaryDirectory() as folder:
        check(wheels[0].resolve(), version, Path(folder), options.site)
    print(f"{wheels[0].name}: installed, and the demo runs from it.")


def check_tag(tag: str, version: str) -> None:
    """Refuse a tag of another version, and one that CHANGELOG.md does not describe."""
    if tag != f"v{version}":
        sys.exit(f"The tag is {tag}, and the wheel is of version {version}.")
    if f"\n## [{version}]" not in CHANGELOG.read_text(encoding="utf-8"):
        sys.exit(f"CHANGELOG.md has no heading `## [{version}]`. Give its lines one.")


def check(wheel: Path, version: str, folder: Path, site: Path | None) -> None:
    """Install the wheel below a folder, and run it from there."""
    venv.create(folder / "venv", with_pip=True, symlinks=os.name != "nt")
    binaries = folder / "venv" / ("Scripts" if sys.platform == "win32" else "bin")
    python, work = str(binaries / "python"), folder / "work"
    work.mkdir()
    pip = [python, "-m", "pip", "install", "--disable-pip-version-check", "-q", str(wheel)]
    if site is None:
        run(pip, work)
    else:
        run([*pip, "--no-deps"], work)
        where = "import sysconfig; print(sysconfig.get_path('purelib'))"
        own = Path(run([python, "-c", where], work).strip())
        (own / "borrowed.pth").write_text(f"{site.resolve()}\n", encoding="utf-8")
    home = run([python, "-c", "import lit_credit; print(lit_credit.__file__)"], work).strip()
    if folder.resolve() not in Path(home).resolve().parents:
        sys.exit(f"{home} is not the installed package.")
    lit_credit = str(binaries / "lit-credit")
    words = run([lit_credit, "--version"], work).split()
    if words[1] != version:
        sys.exit(f"`lit-credit --version` says {words[1]}, and the wheel is of version {version}.")
    print(run([lit_credit, "demo", "--seeds", "42", "--trainer.max_epochs", str(EPOCHS)], work))
    demo = work / "runs" / "demo"
    rows = (demo / "comparison.csv").read_text(encoding="utf-8").splitlines()[1:]
    found = sorted(row.partition(",")[0] for row in rows)
    if found != TRAINED or not (demo / "comparison.png").is_file():
        sys.exit(f"The demo has compared {found}, expected {TRAINED} and comparison.png.")


def run(command: list[str], folder: Path) -> str:
    """Run a command in a folder and return what it prints; end if it fails."""
    print("+", *command, flush=True)
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ended = subprocess.run(
        command, cwd=folder, env=own, stdout=subprocess.PIPE, text=True, check=False
    )
    if ended.returncode:
        sys.exit(f"{ended.stdout}\nexit code {ended.returncode}: {' '.join(command)}")
    return ended.stdout


if __name__ == "__main__":
    main()
