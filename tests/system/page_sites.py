"""What single sections of the pages for users take besides the site that all of them have."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from tests import recipes
from tests.gateway.registries import USERS, DebianRegistry
from tests.pages import Recipe
from tests.system import desk, images
from tests.system.cray import Cray, home_of
from tests.system.gateway_settings import hosts, serving
from tests.system.terminals import LAPTOP
from xcsim.site import Tables


@contextmanager
def as_it_is(cray: Cray, tables: Tables, work: Path) -> Iterator[None]:
    with cray.configured(tables):
        yield


@contextmanager
def _private_registry(cray: Cray, tables: Tables, work: Path) -> Iterator[None]:
    """registry.example gives team/app:2.0 to those who have a password there, such as anna."""
    with DebianRegistry(work / "registry", login=True) as private:
        for name, word in (("password", USERS["anna"]), ("wrong", "anna")):
            file = cray.machine.path(f"{home_of('alice')}/{name}")
            file.write_text(f"{word}\n")
            file.chmod(0o644)
        private.push("team/app", recipes.layers("app:2.0"), tag="2.0", config={"config": recipes.CONFIG})
        example = {"name": "registry.example", "address": private.name, "plain_http": True}
        with serving(cray, {**tables, "registry": hosts(cray, example)}):
            yield
    cray.udi("alice", "rm", "registry.example/team/app:2.0")  # other recipes show lists of images


@contextmanager
def _sessions(cray: Cray, tables: Tables, work: Path) -> Iterator[None]:
    """A login node that allows sessions."""
    with cray.configured({**tables, "sessions": {"enabled": True}}):
        cray.admin("install", "--root", "/")  # the rule of sudo
        yield


@contextmanager
def _workstation(cray: Cray, tables: Tables, work: Path) -> Iterator[None]:
    """A Docker daemon with debian:12 and app:1.0, and alice's directory there."""
    cray.machine.run_as("alice", ["mkdir", "-p", LAPTOP], check=True)
    with cray.configured(tables), desk.dockerd(cray):
        images.save(work / "debian.tar", images.tiny("debian"), "debian:12", (0, 0))
        recipes.save(work / "app.tar", "app:1.0", 0)
        for name in ("debian.tar", "app.tar"):
            desk.load(cray, work / name)
        yield


_OF_SECTIONS: dict[str, Callable[[Cray, Tables, Path], AbstractContextManager[None]]] = {
    "2. An image from your laptop": _workstation,
    "3. A private registry": _private_registry,
    "On a login node": _sessions,
    "On your own workstation": _workstation,
}


def site_of(recipe: Recipe) -> Callable[[Cray, Tables, Path], AbstractContextManager[None]]:
    """The site of a section, with these settings; `work` is a directory for what it keeps."""
    return _OF_SECTIONS.get(recipe.title, as_it_is)
