"""The command line, as the original reads it."""

import pytest

from digit_serving.model_server.flags import parse, table


def test_there_are_all_flags_of_the_original() -> None:
    assert len(table()) == 48


def test_no_flags_mean_the_originals_defaults() -> None:
    options = parse([])
    assert (options.port, options.rest_api_port, options.model_name) == (8500, 0, "default")
    assert (options.enable_profiler, options.max_num_load_retries) == (True, 5)


def test_forms() -> None:
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


def test_flags_without_effect_are_read_all_the_same() -> None:
    options = parse(["--per_process_gpu_memory_fraction=0.5", "--use_alts_credentials"])
    assert (options.per_process_gpu_memory_fraction, options.use_alts_credentials) == (0.5, True)


@pytest.mark.parametrize(
    ("arg", "message"),
    [
        ("--prot=1", "unknown argument: --prot=1"),
        ("stray", "unknown argument: stray"),
        ("--port=one", "couldn't interpret value 'one' for flag port"),
        ("--enable_batching=maybe", "couldn't interpret value 'maybe' for flag enable_batching"),
        ("--num_load_threads=", "couldn't interpret value '' for flag num_load_threads"),
    ],
)
def test_mistakes_are_named(arg: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        parse([arg])
