"""The site is searched as a folder of files too: no page of it asks a server for a script."""

from __future__ import annotations

import yaml

from tests.commands import PROJECT


def test_site__searches_without_a_server_by_a_script_of_its_own() -> None:
    settings = yaml.safe_load((PROJECT / "mkdocs.yml").read_text())
    assert {"search", "offline"} <= {plugin for plugin in settings["plugins"] if isinstance(plugin, str)}
    scripts = settings["extra"]["polyfills"]
    assert any("iframe-worker" in script for script in scripts), "or the plugin names one of another's server"
    for script in scripts:
        assert "://" not in (PROJECT / "docs" / script).read_text()


def test_pages__of_two_sections_or_more_list_them() -> None:
    hidden = [path.name for path in (PROJECT / "docs").rglob("*.md") if "hide: [toc]" in path.read_text()]
    assert hidden == ["index.md"]  # the start page, of pictures
