from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kingpost.build.commands import named_folders, reads_code

ENTRIES = ["model", "data", "config.yaml", "main.py"]


@pytest.mark.parametrize(
    "command",
    [
        "pip install six",
        "mkdir /opt/x && wget -O /opt/x/f https://host/model/f",
        "wget -O /app/big.bin https://host/big.bin",
        "cd /app && touch done",
        "echo hello > greeting.txt",
        "mkdir -p /app/cache/x",
        "curl -fsSL https://host/install.sh | sh",
        "python -c 'print(1)'",
    ],
)
def test_commands_that_can_do_without_the_code(command: str) -> None:
    assert not reads_code([command], ENTRIES)


@pytest.mark.parametrize(
    "command",
    [
        "python model/prepare.py",
        "python main.py",
        "cp config.yaml /opt/",
        "cat /app/data/x",
        "cat $APP_HOME/model/x",
        "python ${APP_HOME}/main.py",
        "ls /packages",
        "./setup.sh",
        "cp *.txt /opt",
        "find .",
        "chmod -R a+r /app",
        "cd /app/model && make",
        "pip install -r data/requirements.txt",
    ],
)
def test_commands_that_may_read_the_code(command: str) -> None:
    assert reads_code([command], ENTRIES)
    assert reads_code(["pip install six", command], ENTRIES)


def test_folders_of_their_own() -> None:
    commands = ["mkdir /opt/x", "wget https://host/path -O /models/a; ls /usr/lib /tmp/x $A/y"]
    assert named_folders(commands) == ["models", "opt"]


@given(text=st.text(max_size=60))
def test_any_text_is_judged(text: str) -> None:
    assert reads_code([text], ENTRIES) in (True, False)
    assert all("/" not in name for name in named_folders([text]))
