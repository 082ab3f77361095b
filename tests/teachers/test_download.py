import contextlib
import hashlib
import http.server
import re
import threading
import time

import pytest
from huggingface_hub import constants

from tests.commands import free_port
from tinymim.errors import TinymimError
from tinymim.teachers import download

CONTENT = bytes(range(256)) * 5000


class Server(http.server.BaseHTTPRequestHandler):
    """Gives CONTENT; how is said by the path."""

    def do_GET(self):
        if self.path == "/missing.pth":
            self.send_error(404)
            return
        if "locked" in self.path and self.headers["Authorization"] != "Basic bWU6c2VjcmV0QA==":
            self.send_error(401)
            return
        if "mute" in self.path:
            for _ in range(20):
                self.wfile.write(b"HTTP/1.0 200 OK\r\n"[:1])
                time.sleep(0.05)
        self.send_response(200)
        self.send_header("Content-Type", "text/html" if "page" in self.path else "application/octet-stream")
        if "unsaid" not in self.path:
            self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        for number in range(100 * ("trickle" in self.path)):
            self.wfile.write(CONTENT[number : number + 1])
            time.sleep(0.02)
        with contextlib.suppress(BrokenPipeError):
            self.wfile.write(CONTENT[:1000] if "short" in self.path else CONTENT)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


@pytest.mark.parametrize("name", ["weights.pth", "unsaid.pth"])
def test_download__whole_with_its_sha256(server, tmp_path, name):
    digest = hashlib.sha256(CONTENT).hexdigest()
    place = tmp_path / "new/small.pth"
    assert download.download(f"{server}/{name}", place) == digest
    assert place.read_bytes() == CONTENT
    assert download.download(f"{server}/{name}", place, digest) == digest


@pytest.mark.parametrize(
    ("name", "sha256", "words"),
    [
        ("missing.pth", None, "the server says 404"),
        ("short.pth", None, "was cut off after 1000 of 1280000 bytes"),
        ("page.pth", None, "gave a web page"),
        ("weights.pth", "0" * 64, "sha256 .*, and 0000.* was expected"),
    ],
)
def test_download__leaves_what_was_there(server, tmp_path, name, sha256, words):
    place = tmp_path / "small.pth"
    place.write_bytes(b"before")
    with pytest.raises(TinymimError, match=words):
        download.download(f"{server}/{name}", place, sha256)
    assert [path.name for path in tmp_path.iterdir()] == ["small.pth"]
    assert place.read_bytes() == b"before"


def test_download__interrupted_leaves_nothing(server, tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(download.Progress, "update", interrupt)
    with pytest.raises(KeyboardInterrupt):
        download.download(f"{server}/weights.pth", tmp_path / "small.pth")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "words"), [("trickle", "gives less than 1,000 bytes a second"), ("mute", "gave no answer")]
)
def test_download__that_trickles_is_given_up(server, tmp_path, monkeypatch, name, words):
    monkeypatch.setattr(download, "STALLED", 0.2)
    with pytest.raises(TinymimError, match=words):
        download.download(f"{server}/{name}.pth", tmp_path / "small.pth")
    assert list(tmp_path.iterdir()) == []


def test_download__a_user_and_password_in_an_address_are_used_and_never_shown(server, tmp_path, capsys):
    named = server.replace("://", "://me:secret%40@")
    download.download(f"{named}/locked.pth?token=hidden", tmp_path / "small.pth")
    assert (tmp_path / "small.pth").read_bytes() == CONTENT
    odd = ("http://me:secret/hidden@h/x", "http://me:secret#hidden@h/x", "http://me:1secret@h:9/x")
    for address in (f"{server}/locked.pth?token=hidden", f"{named}/missing.pth", *odd):
        with pytest.raises(TinymimError) as caught:
            download.download(address, tmp_path / "other.pth")
        assert not re.search("secret|hidden", str(caught.value) + "".join(capsys.readouterr()))


def test_download__no_network_is_said_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(download.urllib.request, "urlopen", lambda *_, **__: pytest.fail("nothing is asked for"))
    with pytest.raises(TinymimError, match=r"cannot be fetched: no connection to 127\.0\.0\.1"):
        download.download(f"http://127.0.0.1:{free_port()}/small.pth", tmp_path / "small.pth")


def test_unreachable__does_not_wait_for_a_slow_resolver(monkeypatch):
    begun, released = threading.Event(), threading.Event()

    def slow(*_, **__):
        begun.set()
        released.wait()
        raise OSError

    monkeypatch.setattr(download.socket, "create_connection", slow)
    monkeypatch.setattr(download, "PATIENCE", 0.05)
    try:
        assert (
            download.unreachable("https://slow.example.org/x")
            == "no connection to slow.example.org within 0.05 seconds"
        )
        assert begun.wait(60)
    finally:
        released.set()


def test_unreachable__goes_through_a_proxy(monkeypatch):
    asked = []
    monkeypatch.setenv("https_proxy", "http://proxy.example.org:3128")
    monkeypatch.setattr(download, "_no_connection", lambda *where: asked.append(where))
    download.unreachable("https://somewhere.example.org/x")
    assert asked == [("proxy.example.org", 3128)]


def test_unreachable__where_the_hub_is_switched_off(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(download, "_no_connection", lambda *_: None)
    assert download.unreachable("https://huggingface.co/timm/x") == "HF_HUB_OFFLINE is set"
    assert download.unreachable("https://example.org/x") is None


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://h:99999/x", "it is no address"),
        ("http://h:abc/x", "it is no address"),
        ("http://[::1/x", "it is no address"),
        (f"http://{'h' * 70}/x", "no connection to h+ "),
    ],
)
def test_unreachable__what_is_no_address(url, words, monkeypatch, tmp_path):
    monkeypatch.setattr(download.urllib.request, "getproxies", dict)
    assert re.match(words, download.unreachable(url))
    with pytest.raises(TinymimError, match="cannot be fetched"):
        download.download(url, tmp_path / "x")
