"""The page holds the trace, loads nothing, and keeps every token text."""

import base64
import io
import json
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from medv_lab.views.page import page_data, unmasking_html
from tests.diffusion.test_attention_maps import make_attention
from tests.diffusion.test_lens import make_lens
from tests.views.test_trace_plots import MASK, empty_trace, make_trace

HOSTILE = [b"<script>alert(1)</script>", b"</script>", b"<!--", b"&lt;", b'" onload="x', b"{{data}}"]
HOSTILE.append("\u2028".encode())


class Reader(HTMLParser):
    """Tags with their attributes, and the text of the element `data`."""

    def __init__(self, html: str):
        super().__init__()
        self.tags, self.data, self._is_data = [], "", False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._is_data = dict(attrs).get("id") == "data"

    def handle_endtag(self, tag):
        self._is_data = False

    def handle_data(self, data):
        self.data += data if self._is_data else ""


def sent(trace, *image) -> dict:
    """What the page is given of a trace."""
    return json.loads(Reader(unmasking_html(trace, *image).html).data)


def large_trace(length: int = 256, alternatives: int = 5):
    """As many passes as tokens, all texts different."""
    random = np.random.default_rng(0)
    ids = random.integers(10, 100_000, (length, alternatives))
    return make_trace(
        step=np.arange(length),
        block=np.arange(length) // 64,
        position=random.permutation(length),
        token_id=ids[:, 0],
        alternative_ids=ids,
        alternative_probs=random.random((length, alternatives)),
        stops=np.full(length, length),
        gen_length=length,
        block_length=64,
        pieces={int(token): f" token{token}".encode() for token in ids.flat},
        confidence=random.random(length),
        entropy=random.random(length),
    )


def test_the_page_of_256_steps_and_tokens_is_small():
    assert len(unmasking_html(large_trace()).html.encode()) < 600_000


def test_the_page_carries_the_numbers_of_the_trace():
    trace = large_trace(64)
    data = sent(trace)
    for name in ("step", "position", "stops"):
        assert data[name] == getattr(trace, name).tolist()
    assert data["token"] == trace.token_id.tolist()
    np.testing.assert_allclose(data["confidence"], trace.confidence, atol=5e-5)
    np.testing.assert_allclose(data["entropy"], trace.entropy, atol=5e-5)
    np.testing.assert_array_equal(np.array(data["alternatives"])[..., 0], trace.alternative_ids)
    np.testing.assert_allclose(np.array(data["alternatives"])[..., 1], trace.alternative_probs, atol=5e-5)
    assert {int(token): piece.encode() for token, piece in data["pieces"].items()} == trace.pieces
    assert data["text"] == trace.text


@pytest.mark.parametrize("piece", HOSTILE)
def test_a_token_stays_text(piece):
    plain = Reader(unmasking_html(make_trace()).html)
    page = Reader(unmasking_html(make_trace(pieces={5: piece, 6: b" b", 7: b" c"})).html)
    assert page.tags == plain.tags
    assert json.loads(page.data)["pieces"]["5"].encode() == piece


def test_the_page_loads_nothing():
    page = Reader(unmasking_html(make_trace()).html)
    (policy,) = (attrs["content"] for _, attrs in page.tags if attrs.get("http-equiv"))
    assert policy.startswith("default-src 'none';")
    addresses = [attrs[name] for _, attrs in page.tags for name in ("src", "href") if name in attrs]
    assert all(address.startswith("data:") for address in addresses)
    html = unmasking_html(make_trace()).html
    assert not [part for part in ("http:", "https:", "@import", "url(") if part in html]


def test_every_control_has_a_name():
    tags = Reader(unmasking_html(make_trace()).html).tags
    labelled = {attrs["for"] for tag, attrs in tags if tag == "label" and "for" in attrs}
    for tag, attrs in tags:
        if tag == "select" or attrs.get("type") == "range":
            assert attrs["id"] in labelled or attrs["aria-label"]
    buttons = {attrs["id"]: attrs for tag, attrs in tags if tag == "button"}
    passes, tools = {"first", "back", "play", "forward", "last"}, {"editing", "mask-all", "keep-all", "go-on"}
    assert buttons.keys() == {*passes, *tools, "theme"}
    assert all(attrs["type"] == "button" for attrs in buttons.values())
    assert all("aria-label" in buttons[name] for name in ("first", "back", "forward", "last"))


def test_it_shows_itself_in_a_frame_and_saves_itself(tmp_path):
    page = unmasking_html(make_trace())
    frame = page._repr_html_()
    tags = Reader(frame).tags
    assert [tag for tag, _ in tags] == ["iframe"]
    assert tags[0][1]["srcdoc"] == page.html
    assert tags[0][1]["sandbox"] == "allow-scripts"
    assert unescape(frame).count("<!doctype html>") == 1
    path = page.save(tmp_path / "folder" / "x.html")
    assert path.read_text(encoding="utf-8") == page.html
    assert len(repr(page)) < 100


def test_repeated_spans_are_known_after_each_pass_and_not_over_masks():
    trace = make_trace(token_id=np.array([5, 5, 5, 5]))  # positions 2, 0, 1, 4 in this order
    assert page_data(trace)["repeats"] == [[], [], [0, 1, 2], [0, 1, 2]]


def test_commits_in_the_prompt_and_replaced_ones():
    trace = make_trace(position=np.array([-1, 0, 1, 1]), token_id=np.array([5, 6, 7, MASK]))
    data = page_data(trace)
    assert data["position"] == [0, 1, 1]
    assert data["token"] == [6, 7, MASK]
    assert data["step"] == [1, 2, 3]


def test_the_last_recorded_layer_of_a_lens_is_what_is_shown_over_all_passes():
    lens = make_lens((0, 3), 4, 6)
    lens.token_id[0, 1, 2], lens.probability[0, 1, 2], lens.final_probability[0, 1, 2] = -1, np.nan, np.nan
    lens.token_id[1, 1, 3] = 11  # said by a layer alone
    pieces = {5: b" a", 6: b" b", 7: b" c", 11: b" d"}
    data = sent(make_trace(lens=lens, pieces=pieces))
    shown = {name: base64.b64decode(text) for name, text in data["over_passes"].items()}
    np.testing.assert_array_equal(np.frombuffer(shown["token"], "<i4").reshape(4, 6), lens.token_id[:, -1])
    for name in ("probability", "final_probability"):
        shares = np.frombuffer(shown[name], np.uint8).reshape(4, 6) / 255
        np.testing.assert_allclose(shares, np.nan_to_num(getattr(lens, name)[:, -1]), atol=0.5 / 255 + 1e-6)
    assert data["pieces"]["11"] == " d" and "-1" not in data["pieces"]
    assert sent(make_trace())["over_passes"] is None


def test_a_caption_is_kept_as_text():
    caption = ("Question: <b>?", "Not a medical device.")
    html = unmasking_html(make_trace(), caption=caption).html
    assert json.loads(Reader(html).data)["caption"] == list(caption)
    assert "<b>" not in html
    assert sent(make_trace())["caption"] == []


def test_a_run_without_passes_is_a_page():
    assert sent(empty_trace())["stops"] == []


def test_a_picture_comes_with_where_each_token_looked(tmp_path):
    attention = make_attention()
    trace = make_trace(attention=attention)
    data = sent(trace, np.zeros((40, 900, 3), np.uint8))
    header, _, picture = data["picture"].partition(",")
    assert header == "data:image/png;base64"
    assert Image.open(io.BytesIO(base64.b64decode(picture))).size == (384, 17)
    looks, grid = data["looks"], attention.grids[0]
    shares = attention.values.astype(float).mean(1)[:, grid.indices().ravel()]
    shown = np.frombuffer(base64.b64decode(looks["shares"]), np.uint8).reshape(len(shares), -1)
    np.testing.assert_allclose(
        shown / 255 * np.array(looks["most"])[:, None], shares, atol=shares.max() / 400
    )
    np.testing.assert_allclose(looks["pictures"], attention.values.astype(float).mean(1).sum(1), atol=1e-6)
    assert (looks["rows"], looks["columns"], looks["box"]) == (grid.rows, grid.columns, list(grid.box))
    assert "picture" not in page_data(trace)
    assert sent(make_trace(), np.zeros((4, 4), np.uint8))["looks"] is None


def test_repeats_that_are_known_are_not_looked_for_again():
    trace = make_trace(token_id=np.array([5, 5, 5, 5]))
    assert page_data(trace, page_data(trace)["repeats"][:2]) == page_data(trace)
    assert page_data(trace, [[9], [9]])["repeats"][:2] == [[9], [9]]


def test_the_page_knows_what_was_given_and_every_draft():
    given = np.array([MASK, MASK, MASK, 8, MASK, MASK])
    drafts = {
        "draft_step": np.array([0, 0, 1]),
        "draft_position": np.array([0, 4, 4]),
        "draft_token": np.array([6, 9, 5]),
    }
    trace = make_trace(given=given, first_stop=5, **drafts, pieces={5: b" a", 6: b" b", 7: b" c", 8: b" d"})
    data = sent(trace)
    assert (data["given"], data["first_stop"]) == (given.tolist(), 5)
    assert data["drafts"] == [part.tolist() for part in drafts.values()]
    assert data["pieces"]["8"] == " d"
    assert page_data(make_trace())["given"] == []
