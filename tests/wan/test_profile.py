"""Profiles: what they say, and what is wrong with them in one line."""

from __future__ import annotations

import pytest
from wan_profile import PROFILES, ProfileError, load, parse

TWO = '[[host]]\nname = "a"\n[[host]]\nname = "b"\n'


@pytest.mark.parametrize("name", sorted(path.stem for path in PROFILES.glob("*.toml")))
def test_every_profile_that_ships_can_be_read(name: str) -> None:
    profile = load(name)
    assert 2 <= len(profile.hosts) <= 8
    assert len(profile.commands()) == len(profile.hosts) + len(profile.links)


def test_the_profiles_that_are_promised_are_there() -> None:
    names = {path.stem for path in PROFILES.glob("*.toml")}
    assert {"transatlantic", "three-continents", "home-uplinks", "lossy"} <= names


def test_what_a_table_leaves_out_comes_from_the_defaults() -> None:
    text = "[defaults]\nup_mbit = 20\ndelay_ms = 5\nloss = 0.01\n" + TWO
    text += 'down_mbit = 7\n[[link]]\nbetween = ["b", "a"]\ndelay_ms = 9\n'
    profile = parse(text, "x")
    assert [host.up_mbit for host in profile.hosts] == [20, 20]
    assert [host.down_mbit for host in profile.hosts] == [1000, 7]
    assert profile.links[0, 1].delay_ms == 9
    assert profile.links[0, 1].loss == 0.01
    assert profile.commands() == [
        "host 0 up 20.0 down 1000.0 queue 100.0",
        "host 1 up 20.0 down 7.0 queue 100.0",
        "link 0 1 delay 9.0 jitter 0.0 loss 0.01 rate 0",
    ]


def test_one_setting_can_be_changed_everywhere() -> None:
    profile = load("transatlantic").with_everywhere(loss=0.5, up_mbit=3)
    assert {link.loss for link in profile.links.values()} == {0.5}
    assert {host.up_mbit for host in profile.hosts} == {3}
    assert {link.delay_ms for link in profile.links.values()} == {40}
    with pytest.raises(ProfileError, match="loss = 2 is no number from 0 to 1"):
        profile.with_everywhere(loss=2)
    with pytest.raises(ProfileError, match="no settings"):
        profile.with_everywhere(speed=2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[host]\n", "is no TOML"),
        ("", "needs 2 to 64"),
        ('[[host]]\nname = "a"\n', "needs 2 to 64"),
        ("host = 3", "needs 2 to 64"),
        (TWO + "[[host]]\nup_mbit = 1\n", "without a name"),
        (TWO + '[[host]]\nname = "a"\n', "two hosts are called a"),
        (TWO + "up_mbit = 0\n", "host b: up_mbit = 0 is no number from 0.001 to 100000"),
        (TWO + "up_mbit = -3\n", "up_mbit = -3 is no number"),
        (TWO + "up_mbit = nan\n", "up_mbit = nan is no number"),
        (TWO + "up_mbit = inf\n", "up_mbit = inf is no number"),
        (TWO + 'up_mbit = "fast"\n', "up_mbit = 'fast' is no number"),
        (TWO + "up_mbit = true\n", "up_mbit = True is no number"),
        (TWO + "up_mbits = 3\n", "unknown key up_mbits; did you mean up_mbit?"),
        (TWO + "delay_ms = 3\n", "unknown key delay_ms"),
        ("[defaults]\nloss = 1.5\n" + TWO, "defaults: loss = 1.5 is no number from 0 to 1"),
        ("defaults = 3\n" + TWO, "defaults: is no table"),
        ("[links]\n" + TWO, "unknown key links; did you mean link?"),
        (TWO + '[[link]]\nbetween = ["a"]\n', "needs between"),
        (TWO + '[[link]]\nbetween = ["a", "a"]\n', "needs between"),
        (TWO + '[[link]]\nbetween = ["a", "c"]\n', "names c; hosts are a, b"),
        (TWO + '[[link]]\nbetween = ["a", "b"]\nloss = -1\n', "link a to b: loss = -1"),
        ("link = 5\n" + TWO, "written as"),
    ],
)
def test_what_is_wrong_is_said(text: str, message: str) -> None:
    with pytest.raises(ProfileError) as error:
        parse(text, "x")
    assert str(error.value).startswith("profile x")
    assert message in str(error.value)
    assert "\n" not in str(error.value).replace(str(error.value.__cause__ or ""), "")


def test_a_profile_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(ProfileError, match="home-uplinks, lossy, three-continents, transatlantic"):
        load("mars")
