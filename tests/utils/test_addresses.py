"""Addresses in ids, logs and files contain no credentials."""

import pytest

from vidlankd_hf.utils.addresses import hide_secrets, is_address, public_address, public_word, without_secrets

ADDRESSES = {
    "http://host.org/a.mp4?X-Sig=SECRET": "http://host.org/a.mp4",
    "https://me:SECRET@host.org:8080/a.mp4#t=SECRET": "https://host.org:8080/a.mp4",
    "HTTPS://SECRET@host.org/a.mp4?SECRET": "HTTPS://host.org/a.mp4",
    "simplecache::http://me:SECRET@host.org/a.mp4?s=SECRET": "simplecache::http://host.org/a.mp4",
    "zip://in.mp4::https://host.org/a.zip?s=SECRET": "zip://in.mp4::https://host.org/a.zip",
    "ftp://me:SECRET@host.org:21/a.mp4": "ftp://host.org:21/a.mp4",
    "s3://KEY:SECRET@bucket/a#1.mp4": "s3://bucket/a#1.mp4",
    "abfs://box/a.mp4?sv=1&sig=SECRET": "abfs://box/a.mp4",
    "http://host.org/a b.mp4?s=SECRET SECRET": "http://host.org/a b.mp4",
    "https://host.org/a.mp4?sig=ab::SECRET::SECRET": "https://host.org/a.mp4",
    "https://me:a::SECRET@[2001:db8::1]:80/a.mp4?s=SECRET": "https://[2001:db8::1]:80/a.mp4",
    "zip://in.mp4::simplecache::https://me:SECRET@[::1]/a": "zip://in.mp4::simplecache::https://[::1]/a",
    "https://me:SECRET/SECRET@host.org/a.mp4": "https://...",
    "https://me:SECRET?SECRET#@host.org/a.mp4": "https://...",
    "sftp://me:SECRET%40SECRET@host.org/a": "sftp://host.org/a",
    "https:/me:SECRET@host.org/a.mp4?s=SECRET": "https:/host.org/a.mp4",  # as `pathlib` writes it
    "https:///me:SECRET@host.org/a": "https:///host.org/a",
    "s3:/KEY:SECRET@bucket/a": "s3:/bucket/a",
    "zip://in.mp4::https:/me:SECRET@host.org/a.zip": "zip://in.mp4::https:/host.org/a.zip",
    "file:///data/a@b/c": "file:///data/a@b/c",
}


@pytest.mark.parametrize("address, public", ADDRESSES.items())
def test_user_password_and_query_of_every_kind_of_address_are_removed(address, public):
    assert public_address(address) == public and public_address(public) == public and is_address(address)


@pytest.mark.parametrize("path", ["/data/why?.mp4", "talk.mp4", "a@b:c?d", "C:/x?y", "owner/name:config", "me@x.org"])
def test_paths_and_names_stay_as_they_are(path):
    assert public_address(path) == without_secrets(path) == path and not is_address(path)


def test_addresses_inside_a_text_lose_their_secrets():
    assert (
        without_secrets("no https:/me:SECRET@h.org/a?s=SECRET here, nor C:/x?y")
        == "no https:/h.org/a here, nor C:/x?y"
    )
    text = 'cannot read \'https://me:SECRET@h.org/a?s=SECRET\', nor {"path": "ftp://x:SECRET@h/b"} for user@mail.org'
    assert without_secrets(text) == ('cannot read \'https://h.org/a\', nor {"path": "ftp://h/b"} for user@mail.org')


def test_address_in_a_word_of_a_command_line_ends_with_the_word():
    assert public_word("--videos=https://me:it's SECRET@h.org/a?s='SECRET") == "--videos=https://h.org/a"
    assert public_word("https://h.org/a?s=x'SECRET") == "https://h.org/a"
    assert public_word("--captions=C:/a b?.tsv") == "--captions=C:/a b?.tsv"


@pytest.mark.parametrize("error", [
    "403, url='http://host.org/b.mp4?X-Sig=a~SECRET%3D'",  # quoted again
    "http://host.org/b.mp4?X-Sig=a%7ESECRET%3d: gone",  # as it was given
    "signature a~SECRET= has expired",  # decoded, without the address
    "signature a%7ESECRET%3D has expired",
    "[Errno 2] No such file or directory: '/data/http:/host.org/b.mp4?X-Sig=a%7ESECRET%3d'",
])  # fmt: skip
def test_secrets_of_an_address_are_removed_from_errors_however_they_are_spelled(error):
    assert "SECRET" not in hide_secrets(error, "http://host.org/b.mp4?X-Sig=a%7ESECRET%3d")
