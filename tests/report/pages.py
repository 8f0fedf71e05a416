"""What a browser would make of a page."""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

from mesocosm.lab.files import read_json, write_json


class Page(HTMLParser):
    """A page's elements with their attributes, and its text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.folder, self.source, self.elements, self.words = path.parent, path.read_text(), [], []
        self.feed(self.source)
        self.text = " ".join(" ".join(self.words).split())
        self.ids = [attributes["id"] for _, attributes in self.elements if "id" in attributes]
        self.links = [
            value
            for _, attributes in self.elements
            for name in ("href", "xlink:href")
            if (value := attributes.get(name))
        ]

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag):
        return [attributes for found, attributes in self.elements if found == tag]

    def broken(self) -> list[str]:
        """Relative links to files or anchors that do not exist."""
        bad = []
        for link in self.links:
            file, _, anchor = unquote(link).partition("#")
            target = self.folder / file
            if link.startswith("https://"):
                continue
            missing = file and not target.exists()
            if missing or (anchor and anchor not in (Page(target) if file else self).ids):
                bad.append(link)
        return bad


def date(folder, finished):
    write_json(folder / "environment.json", {**read_json(folder / "environment.json"), "finished": finished})
