from __future__ import annotations

import http.client
import io
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from curate.demo.answers import HUGE_BYTES, with_size
from curate.demo.server import DemoServer, serve
from curate.demo.world import World


@pytest.fixture(scope="module")
def server(small_world: World) -> Iterator[DemoServer]:
    with serve(small_world, slow_s=0.8, drip_s=0.6) as running:
        yield running


def urls(world: World, kind: str) -> list[str]:
    return [r.url for r in world.resources if r.http_kind == kind]


def get(server: DemoServer, url: str, timeout: float = 20) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=timeout)
    try:
        connection.request("GET", url)
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def test_pictures_arrive_whole_with_type_and_length(server: DemoServer) -> None:
    for url in urls(server.world, "ok")[:10]:
        status, headers, body = get(server, url)
        assert status == 200
        assert body == server.world.image_bytes(url)
        assert headers["Content-Length"] == str(len(body))
        assert headers["Content-Type"].startswith("image/")


@pytest.mark.parametrize(("kind", "status"), [("not_found", 404), ("forbidden", 403), ("server_error", 500)])
def test_errors(server: DemoServer, kind: str, status: int) -> None:
    for url in urls(server.world, kind):
        assert get(server, url)[0] == status


def test_unknown_hosts_and_paths_are_404(server: DemoServer) -> None:
    good = urls(server.world, "ok")[0]
    for url in ("http://nobody.example/a.jpg", good + "x", good.replace(".example/", ".example/moved/", 1)):
        assert get(server, url)[0] == 404


def test_redirect_leads_to_the_picture(server: DemoServer) -> None:
    for url in urls(server.world, "redirect"):
        status, headers, _ = get(server, url)
        assert status in (301, 302, 307, 308)
        status, _, body = get(server, headers["Location"])
        assert status == 200
        assert body == server.world.image_bytes(url)


def test_redirect_loop_never_ends(server: DemoServer) -> None:
    url = start = urls(server.world, "redirect_loop")[0]
    for _ in range(3):
        status, headers, _ = get(server, url)
        assert status == 302
        url = headers["Location"]
    assert url == start


def test_opt_out_says_so(server: DemoServer) -> None:
    for url in urls(server.world, "opt_out"):
        assert "ai" in get(server, url)[1]["X-Robots-Tag"]
    assert "X-Robots-Tag" not in get(server, urls(server.world, "ok")[0])[1]


def test_slow_answers_after_the_patience_of_a_client(server: DemoServer) -> None:
    url = urls(server.world, "slow")[0]
    with pytest.raises(TimeoutError):
        get(server, url, timeout=0.2)
    assert get(server, url)[0] == 200


def test_drip_trickles_and_breaks_off(server: DemoServer) -> None:
    with pytest.raises(http.client.IncompleteRead) as caught:
        get(server, urls(server.world, "drip")[0])
    assert 1 <= len(caught.value.partial) <= 10


def test_bodies_that_are_no_pictures(server: DemoServer) -> None:
    assert get(server, urls(server.world, "empty")[0])[2] == b""
    _, headers, body = get(server, urls(server.world, "html")[0])
    assert headers["Content-Type"] == "image/jpeg"
    assert body.startswith(b"<!doctype html>")
    with pytest.raises(OSError, match="truncated"):
        Image.open(io.BytesIO(get(server, urls(server.world, "truncated")[0])[2])).load()


def test_sizes_out_of_bounds(server: DemoServer) -> None:
    tiny = Image.open(io.BytesIO(get(server, urls(server.world, "tiny")[0])[2]))
    assert max(tiny.size) < 32
    for url in urls(server.world, "extreme_aspect"):
        size = Image.open(io.BytesIO(get(server, url)[2])).size
        assert max(size) > 8 * min(size)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(get(server, urls(server.world, "oversized")[0])[2]))


def test_wrong_type_is_a_good_picture_under_a_lie(server: DemoServer) -> None:
    for url in urls(server.world, "wrong_type"):
        _, headers, body = get(server, url)
        assert headers["Content-Type"] != Image.open(io.BytesIO(body)).get_format_mimetype()


def test_huge_bodies_stream_past_twelve_megabytes(server: DemoServer) -> None:
    for url in urls(server.world, "huge"):
        assert len(get(server, url)[2]) == HUGE_BYTES


def test_private_addresses_get_no_answer_and_are_counted(server: DemoServer) -> None:
    before = server.private_requests
    with pytest.raises(http.client.RemoteDisconnected):
        get(server, urls(server.world, "private_address")[0])
    assert server.private_requests == before + 1


def test_origin_form_port_80_head_and_keep_alive(server: DemoServer) -> None:
    url = urls(server.world, "ok")[0]
    host, _, path = url.removeprefix("http://").partition("/")
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    connection.request("GET", f"/{path}", headers={"Host": host})
    body = connection.getresponse().read()
    assert body == server.world.image_bytes(url)
    first = connection.sock
    connection.request("HEAD", f"http://{host}:80/{path}")
    response = connection.getresponse()
    assert response.read() == b""
    assert response.headers["Content-Length"] == str(len(body))
    assert connection.sock is first
    connection.close()


def test_many_clients_at_once(server: DemoServer) -> None:
    wanted = urls(server.world, "ok")[:64]
    with ThreadPoolExecutor(16) as pool:
        got = list(pool.map(lambda url: get(server, url)[2], wanted))
    assert got == [server.world.image_bytes(url) for url in wanted]


def test_the_cache_stays_within_its_bound(small_world: World) -> None:
    wanted = urls(small_world, "ok")[:30]
    with serve(small_world, cache_bytes=100_000) as running:
        for _ in range(2):
            for url in wanted:
                assert get(running, url)[0] == 200
        held = running._cache
        assert sum(len(a.body) for a in held._items.values()) == held._held <= 100_000


def test_nothing_listens_after_the_context(small_world: World) -> None:
    with serve(small_world) as running:
        port = running.port
    with pytest.raises(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):  # noqa: PT011
        pass


def test_with_size_needs_a_frame_header() -> None:
    with pytest.raises(ValueError, match="frame header"):
        with_size(b"GIF89a.............", 9, 9)
