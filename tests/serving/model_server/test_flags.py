"""Command-line flags of tensorflow_model_server."""

import pytest

from digit_serving.model_server.flags import parse, table


def test_table_has_every_tensorflow_serving_flag() -> None:
    assert len(table()) == 48


def test_parse_nothing_returns_tensorflow_serving_defaults() -> None:
    options = parse([])
    assert (options.port, options.rest_api_port, options.model_name) == (8500, 0, "default")
    assert (options.enable_profiler, options.max_num_load_retries) == (True, 5)


def test_parse_accepts_every_notation() -> None:
    args = [
        "--port=1",
        "-rest_api_port=2",
        "--model_name",
        "m",
        "--enable_batching",
        "--enable_model_warmup=false",
    ]
    options = parse(args)
    assert (options.port, options.rest_api_port, options.model_name) == (1, 2, "m")
    assert (options.enable_batching, options.enable_model_warmup) == (True, False)


def test_parse_ignored_flags_returns_their_values() -> None:
    options = parse(["--per_process_gpu_memory_fraction=0.5", "--use_alts_credentials"])
    assert (options.per_process_gpu_memory_fraction, options.use_alts_credentials) == (0.5, True)


@pytest.mark.parametrize(
    ("arg", "message"),
    [
        ("--prot=1", "unknown argument: --prot=1"),
        ("stray", "unknown argument: stray"),
        ("--port=one", "invalid value 'one' for flag port; expected type: int"),
        ("--enable_batching=maybe", "invalid value 'maybe' for flag enable_batching; expected type: bool"),
        ("--num_load_threads=", "invalid value '' for flag num_load_threads; expected type: int"),
    ],
)
def test_parse_invalid_argument_raises_with_its_name(arg: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        parse([arg])
