"""Common mistakes: each gets a sentence that says what is wrong and the way out."""

import io
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from click.testing import CliRunner, Result
from flask.testing import FlaskClient
from PIL import Image
from werkzeug.wrappers import Request, Response

from digit_client import AsyncClient, Client, Field
from digit_client._cli import main
from digit_core import errors
from digit_core.images import to_png
from digit_serving.gateway.settings import Settings
from tests import greenlet_loop
from tests.client.faulty_server import FaultyServer, failure, problem
from tests.core.blocking import BlockingAsync
from tests.core.drawn_numbers import draw_lines
from tests.core.linear_model_server import LinearModelServer

MAX_BODY = 400_000
"""Largest body that the gateway of these tests takes, in bytes."""


class GatewayServer(FaultyServer):
    """HTTP server that passes requests to the gateway's Flask application."""

    def __init__(self, application: FlaskClient) -> None:
        super().__init__()
        self._application = application

    def respond(self, request: Request) -> Response:
        return self._application.open(
            request.full_path, method=request.method, headers=[*request.headers], data=request.get_data()
        )


@pytest.fixture(scope="module")
def url(digits: Any) -> Iterator[str]:
    with LinearModelServer(digits.images[:1000], digits.labels[:1000], with_is_digit=True) as model_server:
        settings = Settings(
            model_server=model_server.target, default_label="", deadline=60, max_body=MAX_BODY
        )
        with GatewayServer(greenlet_loop.client(settings)) as server:
            yield server.url


@pytest.fixture
def folder(tmp_path: Path, digits: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Working folder with a number, and files that people take for pictures."""
    number = draw_lines([digits.one(1), digits.one(7)])
    files = {
        "number.png": to_png(number),
        "text.png": b"Total: 17\n",
        "empty.png": b"",
        "scan.png": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
        "logo.png": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>',
        "page.png": b"<!DOCTYPE html><html><body>Not found</body></html>",
        "report.png": b"PK\x03\x04\x14\0\x06\0",
        "clip.png": b"\0\0\0\x20ftypisom\0\0\2\0",
        "photo.png": b"\0\0\0\x20ftypavif\0\0\0\0",
        "photo.heic": b"\0\0\0\x20ftypheic\0\0\0\0",
        "array.png": b"\x93NUMPY\x01\0",
        "noise.png": bytes(range(128, 256)),
        "cut.png": to_png(number)[:-60],
        "numbers.txt": b"17\r\n\r\n4x\r\n31\r\n",
        "huge.png": to_png(np.random.default_rng(0).integers(0, 256, (900, 900), np.uint8)),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "more" / "deep").mkdir(parents=True)
    frames = [Image.fromarray(np.full_like(number, level)) for level in (255, 0)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    monkeypatch.chdir(tmp_path)
    return tmp_path


Run = Callable[..., Result]


@pytest.fixture
def run(url: str) -> Run:
    def run(*arguments: str, **environment: str) -> Result:
        return CliRunner(env={"DIGITS_URL": url, **environment}).invoke(main, arguments)

    return run


def last_line(result: Result) -> str:
    """Return the last line of standard error, to which the gateway in this process writes its log, too."""
    return result.stderr.splitlines()[-1]


FILES = {
    "text.png": "This is text, and no picture; supported: PNG, ",
    "empty.png": "This is an empty file: 0 bytes; ",
    "scan.png": "This is a PDF: render its pages first, e.g. `pdftoppm -r 150 -png FILE.pdf page`; ",
    "logo.png": "This is an SVG, which is a drawing: save it as PNG first, e.g. `rsvg-convert ",
    "page.png": "This is a web page: download the picture itself; ",
    "report.png": "This is a ZIP archive or an Office document: take its pictures out first; ",
    "clip.png": "This is a video: save one of its frames as PNG or JPEG first; ",
    "photo.png": "This is AVIF: save it as PNG or JPEG first; ",
    "photo.heic": "This is HEIC that is damaged: save the picture as JPEG first; ",
    "array.png": "This is an .npy file: load it with numpy.load, and pass the array; ",
    "noise.png": "The data is in no supported image format; supported: PNG, ",
    "cut.png": "The image file ends early or is damaged: copy or download it again.",
}


@pytest.mark.parametrize(("name", "sentence"), FILES.items())
def test_file_that_is_no_picture_says_what_it_is_and_takes_no_other_with_it(
    run: Run, folder: Path, name: str, sentence: str
) -> None:
    result = run("read", "number.png", name, "number.png", "number.png")
    first, failed, *others = result.stdout.splitlines()
    assert failed.startswith(f"{name}: {sentence}")
    assert (first, *others) == ("number.png: 17",) * 3
    assert (result.exit_code, last_line(result)) == (1, "3 read, 1 error")


def test_show_of_a_file_that_is_no_picture_writes_nothing(run: Run, folder: Path) -> None:
    assert run("read", "text.png", "--show", "shown.png").exit_code == 1
    assert not (folder / "shown.png").exists()


ARGUMENTS: list[tuple[str, str]] = [
    ("read missing.png", "there is no image at 'missing.png'"),
    ("read more", "there is no image at 'more'; its subfolders are read with -r"),
    ("read https://a.test/5.png", "https://a.test/5.png is a URL: download it first"),
    ("read number.png --expct ##", "No such option '--expct'. (Did you mean one of: '--expect'"),
    ("predict number.png --expect ##", "--expect is an option of `digits read`, which reads numbers."),
    ("predict number.png --nothing", "No such option '--nothing'."),
    (
        "read number.png --expect @numbers.txt",
        "@numbers.txt: line 3 must have one number, in digits, not '4x'",
    ),
    ("read number.png --expect @no.txt", "@no.txt can't be read: No such file or directory"),
    ("read number.png --expect numbers.txt", "a file of valid numbers is @numbers.txt on the command line"),
    (r"read number.png --expect \d{2}", "#"),
    ("read number.png --check crc", "the check must be one of luhn"),
    (
        "read number.png --box -5,0,9,9",
        "left counts from the picture's upper left corner, so it must be a whole",
    ),
    ("read number.png --box 0,0,9", "a box has four numbers: left,top,width,height, not 3"),
    ("read number.png --box 0,0,9,wide", "height of a box must be a whole number from 0, not 'wide'"),
    ("read number.png --min-confidence 95", "must be a number from 0 to 1, not '95'"),
    ("read number.png --show a.gif", "--show writes a PNG file: a.png, not a.gif"),
    (f"read {'number.png ' * 257}--show a.png", "--show draws up to 256 readings, not 257"),
    ("read number.png --url localhost:8080", "must begin with http:// or https://, unlike 'localhost:8080'"),
    ("read number.png --version 1 --version-label stable", "mutually exclusive: give one of them"),
    ("read number.png --format xml", "'xml' is not one of 'table', 'csv', 'jsonl'"),
    ("raed number.png", "there is no command 'raed'; did you mean `read`? Known: "),
    ("read number.png --form no.toml", "no.toml can't be read: No such file or directory"),
]


@pytest.mark.parametrize(("arguments", "sentence"), ARGUMENTS, ids=[each for each, _ in ARGUMENTS])
def test_wrong_argument_says_what_is_right(run: Run, folder: Path, arguments: str, sentence: str) -> None:
    result = run(*arguments.split())
    assert result.exit_code == 2
    assert sentence in result.stderr


def test_box_outside_says_the_pictures_size(run: Run, folder: Path) -> None:
    result = run("read", "number.png", "--box", "5000,0,9,9")
    assert result.exit_code == 1
    assert "number.png: The box [5000, 0, 9, 9] lies outside of the picture, which has " in result.stderr


def test_missing_file_among_others_is_an_error_in_its_place(run: Run, folder: Path) -> None:
    result = run("read", "number.png", "missing.png", "number.png")
    assert result.stdout.splitlines()[1] == "missing.png: the file can't be read: No such file or directory"
    assert (result.exit_code, last_line(result)) == (1, "2 read, 1 error")


SERVICES: list[tuple[Any, str]] = [
    (failure(401), "the service answered status 401: give an API key that it knows, as --api-key, "),
    (
        problem(404, "model_not_found", "There is no such model, version or label."),
        "There is no such model, version or label; the address is ",
    ),
    (lambda: Response("<html>", content_type="text/html"), "text/html instead of JSON: is this the URL of a"),
    (lambda: Response("{}"), "the response does not come from a Digits gateway: is this the URL of a"),
    (failure(404), "the service answered status 404: is this the URL of a Digits gateway?"),
    (
        failure(302, Location="http://b.test/"),
        "the service redirects to http://b.test/; use the gateway's own",
    ),
]


@pytest.mark.parametrize(("response", "sentence"), SERVICES, ids=[each[:30] for _, each in SERVICES])
def test_wrong_service_or_key_is_named(run: Run, folder: Path, response: Any, sentence: str) -> None:
    with FaultyServer() as server:
        server.responses = [response]
        result = run("read", "number.png", "--url", server.url)
    assert result.exit_code == 1
    assert sentence in result.stderr


def test_no_service_says_how_to_start_one(run: Run, folder: Path) -> None:
    result = run("read", "number.png", "--url", "http://127.0.0.1:1")
    assert result.exit_code == 1
    assert result.stderr == (
        "Error: Nothing answers at http://127.0.0.1:1: start it with `digits up`, or give --url\n"
    )
    for kind in (Client, lambda *given: BlockingAsync(AsyncClient, *given)):
        with kind("http://127.0.0.1:1") as client:
            for call in (client.models, lambda: client.read(b"image")):
                with pytest.raises(
                    errors.ConnectionFailedError, match=r"nothing answers at http://127\.0\.0\.1:1"
                ):
                    call()


def test_https_for_a_service_without_tls_says_http(run: Run, folder: Path, url: str) -> None:
    secure = url.replace("http:", "https:")
    result = run("read", "number.png", "--url", secure)
    assert f"{secure} does not speak TLS: begin the URL with http://" in last_line(result)


@pytest.mark.parametrize(
    "reason", ["[Errno -2] Name or service not known", "[Errno 11001] getaddrinfo failed"]
)
def test_name_of_no_host_says_that_the_url_is_wrong(reason: str) -> None:
    def fail(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError(reason, request=request)

    http_client = httpx.Client(transport=httpx.MockTransport(fail))
    client = Client("http://gateway.test", http_client=http_client)
    with pytest.raises(
        errors.ConnectionFailedError, match=r"no host has the name in http://gateway\.test: correct"
    ):
        client.read(b"image")


def test_timeout_that_is_too_short_is_told_while_it_is_tried_again(
    url: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Client(url) as client, pytest.raises(errors.DeadlineExceededError):
        client.read_many(["number.png"], timeout=0.0001, deadline=5).raise_for_errors()
    told = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    (sentence,) = [each for each in told if "did not answer within 0.0001 s" in each]
    assert sentence.startswith("attempt 3 failed, retry in ")


def test_box_without_a_pixel_says_so(run: Run, folder: Path) -> None:
    result = run("read", "number.png", "--box", "0,0,0,9")
    assert "The box [0, 0, 0, 9] has no pixel of the picture, which has 240×160 pixels." in result.output


def test_connection_that_breaks_says_so_with_a_reason() -> None:
    def reset(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadError("", request=request)

    http_client = httpx.Client(transport=httpx.MockTransport(reset))
    client = Client("http://gateway.test", http_client=http_client)
    with pytest.raises(errors.ConnectionFailedError) as raised:
        client.read(b"image")
    assert raised.value.message == (
        "the connection to http://gateway.test broke before the answer (ReadError): the service may have "
        "stopped, or take no body of this size"
    )


def test_folder_in_place_of_a_picture_is_named(url: str, folder: Path) -> None:
    with Client(url) as client:
        with pytest.raises(IsADirectoryError, match="more is a folder: pass the pictures in it one by one"):
            client.read("more")
        outcomes = client.read_many(["more", "number.png"])
    assert isinstance(outcomes[0], IsADirectoryError)
    assert getattr(outcomes[1], "text", None) == "17"


def test_heic_where_it_is_not_decoded_gives_advice_that_a_caller_can_follow(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    (folder / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    result = run("read", "phone.heic")
    assert "HEIC is not decoded here: save the picture as JPEG (on an iPhone, Settings, " in result.stderr
    assert "pip install" not in result.stderr


def test_animation_is_read_by_its_first_frame_and_said_once(
    url: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Client(url) as client:
        client.read("number.png")
        client.read_many(["moving.gif", "moving.gif"])
        client.read("moving.gif")
    said = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert said == ["moving.gif is an animation: its first frame is read"]


@pytest.mark.parametrize(
    "kind", [Client, lambda *given, **options: BlockingAsync(AsyncClient, *given, **options)]
)
def test_picture_larger_than_the_limit_is_scaled_down_or_refused_before_it_is_sent(
    url: str, folder: Path, digits: Any, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = draw_lines([digits.one(1), digits.one(7)])
    expected_scale = 8
    large = np.kron(number, np.ones((expected_scale, expected_scale), np.uint8))
    noisy = large.astype(np.int16) + np.random.default_rng(0).integers(-9, 9, large.shape)
    picture = to_png(noisy.clip(0, 255).astype(np.uint8))
    assert len(picture) > MAX_BODY
    with kind(url) as client:
        small, reading = client.read(number), client.read(picture)
        ok, among = client.read_many([number, picture])
        assert [each.text for each in (small, reading, ok, among)] == ["17"] * 4
        for found in (reading, among):
            for digit, other in zip(found.digits, small.digits, strict=True):
                assert digit.box == pytest.approx([expected_scale * side for side in other.box], abs=30)
        left, top, width, height = reading.digits[1].box
        part = client.read(picture, box=(left - 40, top - 40, width + 80, height + 80))
        assert part.text == "7"
        assert part.digits[0].box == pytest.approx((left, top, width, height), abs=30)
        field = Field((left - 40, top - 40, width + 80, height + 80), expect="#")
        named = client.read_form(picture, {"seven": field})["seven"]
        assert (named.text, named.field) == ("7", "seven")
        assert named.box == pytest.approx(field.box, abs=expected_scale)
        strict = client.with_options(resize="never")
        with pytest.raises(
            errors.ImageTooLargeError, match=r"MB, but the service takes 0\.4 MB: save it smaller"
        ):
            strict.read(picture)
        before, refused, after = strict.read_many([number, picture, number])
        assert (before.text, type(refused), refused.index, after.text) == (
            "17",
            errors.ImageTooLargeError,
            1,
            "17",
        )


def test_form_of_a_file_is_read_by_its_names_and_refused_by_its_place(run: Run, folder: Path) -> None:
    form = "[all]\nbox = [0, 0, 300, 300]\nexpect = '##'\n[far]\nbox = [900, 0, 9, 9]\n"
    (folder / "form.toml").write_text(form)
    result = run("read", "number.png", "--form", "form.toml")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[0] == "all: 17"
    assert "number.png: The field far: the box [900, 0, 9, 9] lies outside" in result.output
    rows = run("read", "number.png", "number.png", "--form", "form.toml", "--json").stdout.splitlines()
    assert [json.loads(row).get("field") for row in rows] == ["all", None] * 2
    (folder / "form.toml").write_text(form.replace("expect", "expetc"))
    result = run("read", "number.png", "--form", "form.toml")
    assert "form.all.expetc: there is no such option; did you mean `expect`?" in result.output
    (folder / "form.toml").write_text("[all")
    result = run("read", "number.png", "--form", "form.toml")
    assert "form.toml is no TOML file: Expected ']' at the end of a table declaration" in result.output
    (folder / "form.toml").write_text("box = [1, 2, 3, 4]")
    result = run("read", "number.png", "--form", "form.toml")
    assert "form.box: must be a field with a box, not [1, 2, 3, 4]" in result.output


def test_picture_larger_than_the_limit_among_others_takes_no_other_with_it(run: Run, folder: Path) -> None:
    result = run("read", "number.png", "huge.png", "number.png")
    assert [result.stdout.splitlines()[index] for index in (0, -1)] == ["number.png: 17"] * 2
    assert "can't reach" not in result.stderr


def test_feedback_at_a_gateway_of_an_earlier_release_says_so(digits: Any) -> None:
    refusal = problem(415, "unsupported_media_type", "Send application/json.")
    with FaultyServer() as server, Client(server.url) as client:
        server.responses = [refusal]
        with pytest.raises(
            errors.ServiceError, match="this service is of an earlier release, which takes no"
        ):
            client.feedback(digits.one(7), 7)


def test_option_of_a_method_is_named_with_the_nearest(url: str) -> None:
    with Client(url) as client, pytest.raises(TypeError, match="did you mean `expect`"):
        client.read(b"image", expct="##")  # type: ignore[call-arg]


def test_one_picture_in_place_of_many_says_to_put_it_in_a_list(url: str) -> None:
    with Client(url) as client, pytest.raises(TypeError, match="put it in a list"):
        client.read_many("number.png")


def test_pillow_image_of_text_file_is_no_image(url: str) -> None:
    with Client(url) as client, pytest.raises(errors.NotAnImageError, match="must be in binary mode"):
        client.read(io.StringIO("text"))  # type: ignore[arg-type]
