"""Figures of articles: what is counted, what is paired with what, what is refused."""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml
from PIL import Image

from medkit.errors import DataError
from medkit.readers import Record, Rejected
from medkit.readers.figures import files, layout, modality, read
from medkit.readers.figures.article import read_article
from medkit.readers.figures.licence import normalised, third_party
from medkit.readers.figures.panels import split_panels
from medkit.readers.figures.parts import Article, Figure, Picture
from medkit.readers.figures.xml import XmlError, parse
from medkit.readers.ingest import ingest
from medkit.readers.licences import allows
from medkit.store import open_dataset
from medkit.teacher.teach import teach
from tests.real_data import real_set, splits_of

META = "<front><article-meta>{}</article-meta></front>"
CC_BY = (
    '<permissions><license xlink:href="http://creativecommons.org/licenses/by/4.0/">'
    "<license-p>Open.</license-p></license></permissions>"
)


def article(body: str, meta: str = "", before: str = "", kind: str = "research-article") -> bytes:
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>{before}<article article-type="{kind}" '
        f'xmlns:xlink="http://www.w3.org/1999/xlink" xmlns:mml="http://www.w3.org/1998/Math/MathML">'
        f"{META.format(meta)}<body>{body}</body></article>"
    ).encode()


def fig(name: str, label: str = "", caption: str = "", graphic: str | None = None) -> str:
    """Gives a figure; its graphic's link is its id unless said otherwise."""
    return (
        f'<fig id="{name}"><label>{label}</label><caption><p>{caption}</p></caption>'
        f'<graphic id="g-{name}" xlink:href="{graphic or name}"/></fig>'
    )


def figures(body: str, meta: str = "", before: str = "") -> list[Figure]:
    return read_article(parse(article(body, meta, before))).figures


def said(figure: Figure) -> list[tuple[str, str]]:
    return [(mention.text, mention.by) for mention in figure.mentions]


def png() -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (8, 8), (10, 20, 30)).save(data, format="PNG")
    return data.getvalue()


def write(folder: Path, **contents: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in contents.items():
        folder.joinpath(name).write_bytes(data)


# --- the articles of the shared set ------------------------------------------------------------------------


def cases() -> list[tuple[Path, dict[str, Any]]]:
    folder = real_set("jats")
    return [(folder, row) for rows in splits_of(folder, "items_*.jsonl").values() for row in rows]


def plain_counts(root: Any) -> dict[str, int]:
    """Counts with nothing but element names: an independent reading of the same tree."""
    nodes = list(root.iter("{*}fig"))
    ids = {node.get("id") for node in nodes} - {None}
    xrefs = [node for node in root.iter("{*}xref") if node.get("ref-type") == "fig"]
    apart = {name for node in xrefs for name in (node.get("rid") or "").split()}
    whole = {node.get("rid") or "" for node in xrefs}
    other = {name for node in root.iter("{*}xref") for name in (node.get("rid") or "").split()} - apart
    return {
        "fig": len(nodes),
        "ids": len(ids),
        "apart": len(ids & apart),
        "whole": len(ids & whole),
        "other": len(ids & other),
    }


def test_every_article_of_the_set_has_its_figures_captions_and_references() -> None:
    rows = cases()
    differences: list[str] = []
    for folder, row in rows:
        root = parse((folder / row["file"]).read_bytes())
        found, counted = read_article(root), plain_counts(root)
        own = [one for one in found.figures if one.id not in group_ids(root)]
        if len(own) != row["n_fig"]:
            differences.append(f"{row['id']}: {len(own)} figures, {row['n_fig']} in the items")
        captions = sum(bool(one.own_caption) for one in own)
        # The items count a caption that holds pictures or formulas alone as text; running text has none of them.
        bare = sum(not one.own_caption and has_silent_caption(root, one.id) for one in own)
        if captions != row["n_fig_with_caption"] and captions + bare != row["n_fig_with_caption"]:
            differences.append(f"{row['id']}: {captions} captions, {row['n_fig_with_caption']} in the items")
        # What only a range, a panel or a group names has no reference of its own in the items, and they don't count
        # references to figures that are marked as references to something else.
        named = sum("rid" in one.referenced for one in own) - counted["other"]
        explained = {named}
        if counted["whole"] != counted["apart"]:
            # The items may take rid="f1 f2" as one name.
            explained.add(named - counted["apart"] + counted["whole"])
        if counted["ids"] != counted["fig"]:
            # The items count ids; a part of the document may use one again, and a figure may have none.
            explained.add(counted["apart"])
        if row["n_fig_referenced"] not in explained:
            differences.append(f"{row['id']}: {named} referenced, {row['n_fig_referenced']} in the items")
    assert rows
    assert differences == []


def group_ids(root: Any) -> set[str]:
    return {node.get("id") for node in root.iter("{*}fig-group") if node.get("id")}


def has_silent_caption(root: Any, name: str) -> bool:
    node = next((one for one in root.iter("{*}fig") if one.get("id") == name), None)
    return node is not None and any("".join(one.itertext()).strip() for one in node.iter("{*}caption"))


def test_every_picture_file_of_the_set_is_found_and_no_other() -> None:
    folder = real_set("jats")
    want: dict[str, set[str]] = {}
    for rows in splits_of(folder, "items_*.jsonl").values():
        for row in rows:
            if row["image_files"]:
                want[str(Path(row["file"]).with_suffix(""))] = set(row["image_files"].values())
    got: dict[str, set[str]] = {}
    for item in read(folder, {"retracted": "keep"}):
        if isinstance(item, Record):
            pictures = item.image if isinstance(item.image, list) else [item.image]
            paths = {str(Path(str(one)).relative_to(folder)) for one in pictures}
            got.setdefault(item.id.rpartition("/")[0], set()).update(paths)
    if not want:
        pytest.skip("no article of the set has picture files")
    assert got == want


def test_pictures_of_the_set_belong_to_the_figure_that_names_them() -> None:
    wrong = []
    folder = real_set("jats")
    links = {
        str(Path(row["file"]).with_suffix("")): row["image_files"]
        for rows in splits_of(folder, "items_*.jsonl").values()
        for row in rows
    }
    for item in read(folder, {}):
        if isinstance(item, Record):
            source, _, name = item.id.rpartition("/")
            root = parse(next(path for path in folder.glob(f"{source}.*ml")).read_bytes())
            node = next(one for one in root.iter("{*}fig") if one.get("id") == name)
            hrefs = [one.get("{http://www.w3.org/1999/xlink}href") for one in node.iter("{*}graphic")]
            expected = {links[source][href] for href in hrefs if href in links[source]}
            pictures = item.image if isinstance(item.image, list) else [item.image]
            paths = {str(Path(str(one)).relative_to(folder)) for one in pictures}
            wrong += [item.id] if not paths <= expected else []
    assert wrong == []


def test_licences_of_the_set_agree() -> None:
    rows = cases()
    wrong = []
    for folder, row in rows:
        stated = row["licence"].replace("CC0-1.0", "CC0 1.0")
        if not stated.startswith(("CC", "Public domain")):
            continue  # a journal's own terms have no common name
        found = read_article(parse((folder / row["file"]).read_bytes())).licence
        # The sentence or link may carry a version that the items left out.
        if found != stated and not found.startswith(f"{stated} "):
            wrong.append((row["id"], stated, found))
    assert wrong == []


# --- pairs that others get wrong ---------------------------------------------------------------------------


def test_a_figure_without_caption_does_not_get_its_neighbours() -> None:
    first, second, third = figures(
        fig("f1", "Figure 1", "A lung.") + '<fig id="f2"><graphic xlink:href="f2"/></fig>' + fig("f3", "", "")
    )
    assert (first.caption, second.caption, third.caption) == ("A lung.", "", "")


def test_a_figure_without_id_keeps_its_place() -> None:
    found = figures(
        '<fig><caption><p>One.</p></caption><graphic xlink:href="a"/></fig>' + fig("f2", "", "Two.")
    )
    assert [(one.id, one.caption) for one in found] == [("fig-1", "One."), ("f2", "Two.")]


def test_the_link_is_the_href_and_not_the_first_attribute() -> None:
    (found,) = figures('<fig id="f1"><graphic id="g1" position="float" xlink:href="real.jpg"/></fig>')
    assert found.pictures == [Picture(("real.jpg",))]


def test_alternatives_are_one_picture_and_two_graphics_are_two() -> None:
    (found,) = figures(
        '<fig id="f1"><alternatives><graphic xlink:href="small.gif" content-type="thumbnail"/>'
        '<graphic xlink:href="big.tif"/></alternatives><graphic xlink:href="second.jpg"/></fig>'
    )
    assert found.pictures == [Picture(("big.tif", "small.gif")), Picture(("second.jpg",))]


def test_another_form_of_a_graphic_is_no_second_picture() -> None:
    (found,) = figures(
        '<fig id="f1"><graphic id="g1" xlink:href="one"/>'
        '<graphic alternate-form-of="g1" xlink:href="one.gif"/></fig>'
    )
    assert found.pictures == [Picture(("one", "one.gif"))]


def test_graphics_of_tables_formulas_and_supplements_are_not_the_figures() -> None:
    (found,) = figures(
        '<fig id="f1"><caption><p>See <inline-formula><inline-graphic xlink:href="i"/></inline-formula>'
        '<disp-formula><graphic xlink:href="formula"/></disp-formula>it.</p></caption>'
        '<graphic xlink:href="real"/><supplementary-material><graphic xlink:href="supplement"/>'
        "</supplementary-material></fig>"
        '<table-wrap><graphic xlink:href="table"/></table-wrap>'
    )
    assert [one.names for one in found.pictures] == [("real",)]
    assert found.caption == "See it."


def test_a_group_lends_its_caption() -> None:
    first, second = figures(
        '<fig-group id="fg"><caption><title>Two lungs</title></caption>'
        + fig("f1", "Figure 1", "Left.")
        + '<fig id="f2"><graphic xlink:href="f2"/></fig></fig-group>'
    )
    assert (first.caption, first.own_caption, first.group) == ("Two lungs. Left.", "Left.", "fg")
    assert (second.caption, second.own_caption) == ("Two lungs.", "")


def test_a_group_with_one_picture_gathers_the_sub_captions() -> None:
    group, left, right = figures(
        '<fig-group id="fg"><label>Figure 4</label><caption><p>Both sides</p></caption>'
        '<fig id="a"><label>A</label><caption><p>Left.</p></caption></fig>'
        '<fig id="b"><label>B</label><caption><p>Right.</p></caption></fig>'
        '<graphic xlink:href="whole"/></fig-group>'
    )
    assert (group.id, group.caption) == ("fg", "Both sides. A Left. B Right.")
    assert group.pictures == [Picture(("whole",))]
    assert left.pictures == right.pictures == []


def test_figures_in_the_floats_group_are_found_with_their_mentions() -> None:
    root = parse(
        b'<article xmlns:xlink="http://www.w3.org/1999/xlink"><body><p>As <xref ref-type="fig" rid="f1">Fig. 1'
        b"</xref> shows.</p></body><floats-group>"
        + fig("f1", "Fig. 1.", "X.").encode()
        + b"</floats-group></article>"
    )
    (found,) = read_article(root).figures
    assert said(found) == [("As Fig. 1 shows.", "rid")]


def test_the_original_caption_is_taken_and_translations_are_not() -> None:
    (found,) = figures(
        '<fig id="f1"><caption xml:lang="fr"><p>Un poumon.</p></caption>'
        '<caption xml:lang="en"><p>A lung.</p></caption><graphic xlink:href="f1"/></fig>'
    )
    assert found.caption == "A lung."


def test_a_video_is_no_picture() -> None:
    (found,) = figures('<fig id="f1"><media mimetype="video" xlink:href="v.mp4"/></fig>')
    assert found.pictures == []


# --- text --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inner", "text"),
    [
        ("CO<sub>2</sub> at 10<sup>-3</sup> mol", "CO2 at 10^-3 mol"),
        ("<sup>14</sup>C and Ca<sup>2+</sup>", "14C and Ca2+"),
        ("5\u2009µm\u00a0wide\u200b, a\u00adb", "5 µm wide, ab"),
        ("as before <xref ref-type='bibr' rid='b1'>[13]</xref>, and here", "as before, and here"),
        (
            "after <xref ref-type='bibr' rid='b1'>Smith et al. (2017)</xref>.",
            "after Smith et al. (2017).",
        ),
        ("cells [<xref ref-type='bibr' rid='b'>3</xref>,<xref ref-type='bibr' rid='c'>4</xref>] grow", "cells grow"),
        (
            "n = <inline-formula><tex-math>\\documentclass{x}\\usepackage{y}\\begin{document}$5$\\end{document}"
            "</tex-math></inline-formula> here",
            "n = 5 here",
        ),
        (
            "n = <inline-formula><alternatives><tex-math>\\begin{document}$x_2$\\end{document}</tex-math>"
            "<mml:math><mml:mi>x</mml:mi> <mml:mn>2</mml:mn></mml:math></alternatives></inline-formula>.",
            "n = x2.",
        ),
        ("a <inline-graphic xlink:href='i.gif'/> b <bold>c</bold>d<!-- no -->", "a b cd"),
    ],
)  # fmt: skip
def test_captions_read_as_text(inner: str, text: str) -> None:
    (found,) = figures(fig("f1", "", inner))
    assert found.caption == text


def test_a_title_ends_before_the_text_goes_on() -> None:
    (found,) = figures('<fig id="f1"><caption><title>Two lungs</title><p>Left, right.</p></caption></fig>')
    assert found.caption == "Two lungs. Left, right."


# --- mentions ----------------------------------------------------------------------------------------------

FIVE = "".join(fig(f"f{n}", f"Figure {n}.", f"Caption {n}.") for n in range(1, 6))


def mentioned(paragraph: str, extra: str = "") -> dict[str, list[tuple[str, str]]]:
    return {one.id: said(one) for one in figures(f"<p>{paragraph}</p>{FIVE}{extra}") if one.mentions}


def ref(rid: str, text: str = "") -> str:
    return f'<xref ref-type="fig" rid="{rid}">{text}</xref>'


def test_a_mention_is_its_sentence() -> None:
    text = f"Before (i.e. Fig. 9). In {ref('f1', 'Fig. 1')} cells grow. After."
    assert mentioned(text) == {"f1": [("In Fig. 1 cells grow.", "rid")]}


def test_a_reference_inside_other_markup_is_kept() -> None:
    text = f"See <bold>({ref('f2', '<italic>Figure 2</italic>')})</bold> here."
    assert mentioned(text) == {"f2": [("See (Figure 2) here.", "rid")]}


def test_one_reference_to_two_figures_counts_for_both() -> None:
    sentence = ("See Figures 1 and 2.", "rid")
    assert mentioned(f"See {ref('f1 f2', 'Figures 1 and 2')}.") == {"f1": [sentence], "f2": [sentence]}


@pytest.mark.parametrize(
    "text",
    [
        f"See {ref('f2', 'Figs 2')}–{ref('f5', '5')}.",
        f"See {ref('f2', 'Figs 2A')}-{ref('f5', '5B')}.",
        f"See <bold>{ref('f2', 'Fig. 2')}</bold> to {ref('f5', 'Fig. 5')}.",
        f"See {ref('f2', 'Figures 2–5')}.",
        f"See {ref('f2 f5', 'Figures 2 through 5')}.",
    ],
)
def test_ranges_name_what_lies_between(text: str) -> None:
    found = mentioned(text)
    assert set(found) == {"f2", "f3", "f4", "f5"}
    assert found["f3"][0][1] == found["f4"][0][1] == "range"


@pytest.mark.parametrize(
    "text",
    [
        f"See {ref('f2', 'Fig. 2')} and {ref('f5', '5')}.",
        f"See {ref('f2', 'Fig. 2A–C')} or {ref('f5', 'Fig. 5')}.",
        f"See {ref('f2', 'Fig. 2')}, 5–{ref('f5', '5')}.",
    ],
)
def test_what_is_no_range_names_its_ends_alone(text: str) -> None:
    assert set(mentioned(text)) == {"f2", "f5"}


def test_a_range_stays_within_one_kind_of_figure() -> None:
    schemes = "".join(fig(f"s{n}", f"Scheme {n}", "S.") for n in range(1, 4))
    found = mentioned(f"See {ref('s1', 'Schemes 1')}–{ref('s3', '3')}.", schemes)
    assert set(found) == {"s1", "s2", "s3"}


def test_a_panel_is_a_mention_of_its_figure() -> None:
    assert mentioned(f"See {ref('f2B', 'Fig. 2B')}.") == {"f2": [("See Fig. 2B.", "panel")]}


def test_a_group_is_a_mention_of_its_figures() -> None:
    group = f'<fig-group id="fg">{fig("x", "X", "X.")}{fig("y", "Y", "Y.")}</fig-group>'
    found = mentioned(f"See {ref('fg', 'the group')}.", group)
    assert found == {"x": [("See the group.", "group")], "y": [("See the group.", "group")]}


def test_an_empty_reference_is_said_by_the_label() -> None:
    assert mentioned(f"As {ref('f3')} shows.") == {"f3": [("As Figure 3 shows.", "rid")]}


def test_captions_and_tables_are_no_running_text() -> None:
    table = f"<table-wrap><table><tr><td>{ref('f1', 'Fig. 1')}</td></tr></table></table-wrap>"
    found = figures(FIVE + fig("f6", "Figure 6", f"As in {ref('f1', 'Fig. 1')}.") + table)
    assert found[0].mentions == []
    assert found[0].referenced == {"rid"}
    assert found[1].referenced == set()


def test_an_id_belongs_to_its_part_of_the_document() -> None:
    root = parse(
        article(f"<p>See {ref('f1', 'Fig. 1')}.</p>{fig('f1', 'Figure 1', 'Main.')}").replace(
            b"</article>",
            f"<sub-article><body><p>Reply: {ref('f1', 'Reply fig. 1')}.</p>{fig('f1', 'Figure 1', 'Reply.')}"
            "</body></sub-article></article>".encode(),
        )
    )
    main, reply = read_article(root).figures
    assert (main.id, said(main)) == ("f1", [("See Fig. 1.", "rid")])
    assert (reply.id, said(reply)) == ("f1-2", [("Reply: Reply fig. 1.", "rid")])


# --- licences and retractions ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("http://creativecommons.org/licenses/by/4.0/", "CC BY 4.0"),
        ("https://creativecommons.org/licenses/by-nc-nd/3.0/us/", "CC BY-NC-ND 3.0"),
        ("https://creativecommons.org/publicdomain/zero/1.0/", "CC0 1.0"),
        ("CC BY-NC", "CC BY-NC"),
        ("CC0", "CC0 1.0"),
        ("the Creative Commons Attribution License, which permits unrestricted use", "CC BY"),
        ("Creative Commons Attribution Non-Commercial License", "CC BY-NC"),
        ("Creative Commons Attribution-NonCommercial-NoDerivs 4.0", "CC BY-NC-ND 4.0"),
        ("All rights reserved.", ""),
    ],
)
def test_licences_have_one_name(text: str, name: str) -> None:
    assert normalised(text) == name


@pytest.mark.parametrize(
    ("licence", "research", "commercial"),
    [
        ("CC BY 4.0", True, True),
        ("CC0 1.0", True, True),
        ("Public domain", True, True),
        ("CC BY-SA 4.0", True, True),
        ("CC BY-NC 4.0", True, False),
        ("CC BY-ND 4.0", True, False),
        ("", False, False),
        ("all rights reserved", False, False),
    ],
)
def test_what_a_licence_allows(licence: str, research: bool, commercial: bool) -> None:
    assert (allows(licence, "research"), allows(licence, "commercial")) == (research, commercial)
    assert allows(licence, "any")


def test_of_two_statements_the_stricter_counts() -> None:
    meta = CC_BY.replace("Open.", "Creative Commons Attribution Non-Commercial License")
    assert read_article(parse(article("", meta))).licence == "CC BY-NC"


def test_a_figure_may_have_a_licence_of_its_own() -> None:
    own = "<permissions><copyright-statement>© Elsevier 2009</copyright-statement></permissions></fig>"
    open_one, reserved, said_so, other = figures(
        fig("f1", "", "Ours.")
        + fig("f2", "", "Theirs.").replace("</fig>", own)
        + fig("f3", "", "Reproduced from [3] with permission from the publisher.")
        + fig("f4", "", "Free.").replace("</fig>", CC_BY.replace("/by/", "/by-nc/") + "</fig>"),
        CC_BY,
    )
    assert (open_one.licence, open_one.third_party) == ("CC BY 4.0", False)
    assert (reserved.licence, reserved.third_party) == ("all rights reserved", True)
    assert (said_so.licence, said_so.third_party) == ("CC BY 4.0", True)
    assert (other.licence, other.third_party) == ("CC BY-NC 4.0", False)


def test_words_about_rights() -> None:
    assert third_party("Adapted, with permission, from Smith.")
    assert not third_party("Cells were taken from permissive mice and produced cytokines.")


@pytest.mark.parametrize(
    ("kind", "meta", "retracted"),
    [
        ("research-article", '<related-article related-article-type="retraction-forward"/>', True),
        ("retraction", '<related-article related-article-type="retracted-article"/>', False),
        (
            "research-article",
            "<title-group><article-title>RETRACTED: Cells</article-title></title-group>",
            True,
        ),
        (
            "research-article",
            "<title-group><article-title>Retracted roots</article-title></title-group>",
            False,
        ),
        ("research-article", '<related-article related-article-type="corrected-article"/>', False),
    ],
)
def test_retracted_is_the_article_and_not_the_notice(kind: str, meta: str, retracted: bool) -> None:
    assert read_article(parse(article("", meta, kind=kind))).retracted is retracted


# --- files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("href", "there", "name"),
    [
        ("fig1.jpg", ["fig1.jpg", "fig10.jpg"], "fig1.jpg"),
        ("fig1", ["fig10.jpg", "fig1.png"], "fig1.png"),
        ("fig1", ["fig10.jpg"], ""),
        ("fig1.tif", ["fig1.gif", "fig1.jpg"], "fig1.jpg"),
        ("fig1.eps", ["fig1.jpg"], "fig1.jpg"),
        ("Fig1.JPG", ["fig1.jpg"], "fig1.jpg"),
        (
            "ABI2008-897019.001",
            ["ABI2008-897019.002.jpg", "ABI2008-897019.001.jpg"],
            "ABI2008-897019.001.jpg",
        ),
        ("info:doi/10.1371/journal.pone.0046493.g001", ["pone.0046493.g001.tif"], "pone.0046493.g001.tif"),
        ("info:doi/10.1371/journal.pone.0046493.g001", ["g001.png", "g010.png"], "g001.png"),
        ("pone.0046493.g001", ["journal.pone.0046493.g001.png"], "journal.pone.0046493.g001.png"),
        ("images/a%20b.png", ["a b.png"], "a b.png"),
        ("fig1.jpg", ["FIG1.jpg", "Fig1.jpg"], ""),
        ("../../etc/passwd", ["fig1.jpg"], ""),
    ],
)
def test_names_of_picture_files(href: str, there: list[str], name: str) -> None:
    assert files.find(Picture((href,)), files.index(there)).name == name


def test_a_shared_folder_gives_a_picture_only_by_its_articles_number() -> None:
    assert files.belongs("pone.0046493.g001.tif", ["journal.pone.0046493.xml"])
    assert not files.belongs("pone.0046494.g001.tif", ["journal.pone.0046493.xml"])
    assert not files.belongs("pone.00464931.tif", ["journal.pone.0046493.xml"])
    assert not files.belongs("fig1.jpg", ["journal.pone.0046493.xml"])


# --- layouts -----------------------------------------------------------------------------------------------

DOI = '<article-id pub-id-type="doi">10.1/{}</article-id>'


def test_the_old_package_layout(tmp_path: Path) -> None:
    body = f"<p>See {ref('f1', 'Fig. 1')}.</p>{fig('f1', 'Fig. 1', 'Chest radiograph.', 'a-1-1')}"
    write(tmp_path / "PMC13900", **{"a-1.nxml": article(body, DOI.format("a") + CC_BY), "a-1-1.jpg": png()})
    (record,) = read(tmp_path, {})
    assert isinstance(record, Record)
    assert record.id == "PMC13900/a-1/f1"
    assert record.image == tmp_path / "PMC13900" / "a-1-1.jpg"
    assert (record.caption, record.licence, record.group) == ("Chest radiograph.", "CC BY 4.0", "doi:10.1/a")
    assert record.facts["mentions"] == ["See Fig. 1."]
    assert (record.facts["modality"], record.facts["modality_confidence"]) == ("chest X-ray", 0.9)
    assert record.extra["article"]["doi"] == "10.1/a"


def test_the_same_package_packed(tmp_path: Path) -> None:
    content = {"PMC1/a.nxml": article(fig("f1", "", "One.", "a-1")), "PMC1/a-1.jpg": png()}
    pack(tmp_path / "PMC1.tar.gz", content)
    (record,) = read(tmp_path, {})
    assert isinstance(record, Record)
    assert (record.id, record.caption, record.image) == ("PMC1/f1", "One.", png())


def test_the_current_layout_with_its_metadata(tmp_path: Path) -> None:
    for name, body in (("PMC7.1", "Old."), ("PMC7.2", "New."), ("PMC7.3", "Manuscript.")):
        write(tmp_path / name, **{f"{name}.xml": article(fig("f1", "", body, "x"), CC_BY), "x.jpg": png()})
    metadata = {
        f"PMC7.{n}.json": json.dumps(
            {"pmcid": "PMC7", "version": n, "license_code": "CC BY-NC", "is_manuscript": n == 3, "is_retracted": False}
        ).encode()
        for n in (1, 2, 3)
    }  # fmt: skip
    write(tmp_path / "metadata", **metadata)
    found = list(read(tmp_path, {}))
    records = [one for one in found if isinstance(one, Record)]
    assert [(one.id, one.caption, one.licence, one.group) for one in records] == [
        ("PMC7.2/PMC7.2/f1", "New.", "CC BY-NC", "pmcid:7")
    ]
    assert [(one.record, one.reason) for one in found if isinstance(one, Rejected)] == [
        ("PMC7.1/PMC7.1", "another version is preferred"),
        ("PMC7.3/PMC7.3", "another version is preferred"),
    ]


def test_metadata_may_retract(tmp_path: Path) -> None:
    write(
        tmp_path / "PMC7.1",
        **{"PMC7.1.xml": article(fig("f1", "", "X.")), "f1.png": png()},
        **{"PMC7.1.json": b'{"pmcid": "PMC7", "is_retracted": true}'},
    )
    assert [getattr(one, "reason", "") for one in read(tmp_path, {})] == ["retracted article"]
    (kept,) = read(tmp_path, {"retracted": "keep"})
    assert isinstance(kept, Record) and kept.facts["retracted"] is True


def test_many_articles_in_one_folder_do_not_share_pictures(tmp_path: Path) -> None:
    write(
        tmp_path,
        **{
            "journal.1234567.xml": article(fig("f1", "", "One.", "1234567.g001")),
            "journal.7654321.xml": article(fig("f1", "", "Two.", "fig1")),
            "1234567.g001.png": png(),
            "fig1.jpg": png(),
        },
    )
    one, two = read(tmp_path, {})
    assert isinstance(one, Record) and one.image == tmp_path / "1234567.g001.png"
    assert isinstance(two, Rejected) and (two.reason, two.detail) == ("image missing", "fig1")


def test_every_figure_has_a_fate(tmp_path: Path) -> None:
    body = fig("f1", "", "Open.") + fig("f2", "", "Reprinted with permission.") + '<fig id="f3"/>'
    write(
        tmp_path / "one",
        **{"a.xml": article(body + fig("f4", "", "Lost."), CC_BY), "f1.png": png(), "f2.png": png()},
    )
    write(
        tmp_path / "two",
        **{"b.xml": article("<p>None.</p>", CC_BY), "c.xml": b"<annotation/>", "d.xml": b"<a>"},
    )
    write(tmp_path / "three", **{"e.xml": article(fig("f1", "", "Whose?")), "f1.png": png()})
    fates = {
        one.record if isinstance(one, Rejected) else one.id: getattr(one, "reason", "kept")
        for one in read(tmp_path, {"use": "commercial"})
    }
    assert fates == {
        "one/a/f1": "kept",
        "one/a/f2": "third-party figure",
        "one/a/f3": "figure without graphic",
        "one/a/f4": "image missing",
        "two/b": "article without figures",
        "two/c": "article unreadable",
        "two/d": "article unreadable",
        "three/e/f1": "licence not allowed",
    }


def test_wrong_options_are_refused(tmp_path: Path) -> None:
    for options in (
        {"use": "free"},
        {"retracted": "hide"},
        {"classifier": "mine"},
        {"panel": True},
        {"give": ["text"]},
    ):
        with pytest.raises(DataError):
            list(read(tmp_path, options))
    with pytest.raises(DataError, match="no folder"):
        list(read(tmp_path / "none", {}))


# --- hostile files -----------------------------------------------------------------------------------------


def pack(path: Path, content: dict[str, bytes], *others: tarfile.TarInfo) -> None:
    with tarfile.open(path, "w:gz") as tar:
        for other in others:
            tar.addfile(other)
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def test_external_entities_are_never_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("the secret", encoding="utf-8")
    for declared in (f'SYSTEM "{secret.as_uri()}"', f'PUBLIC "x" "{secret.as_uri()}"'):
        before = f"<!DOCTYPE article [<!ENTITY x {declared}>]>"
        (found,) = figures(fig("f1", "", "See &x; here."), before=before)
        assert found.caption == "See here."


def test_entities_that_unfold_are_not_unfolded() -> None:
    levels = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    before = f'<!DOCTYPE article [<!ENTITY l0 "lol">{levels}]>'
    (found,) = figures(fig("f1", "", "A &l2; B"), before=before)
    assert found.caption == "A B"
    with pytest.raises(XmlError, match="ERR_RESOURCE_LIMIT"):
        figures(fig("f1", "", "A &l9; B"), before=before)


def test_characters_of_a_dtd_are_known_without_it() -> None:
    caption = "5&nbsp;&micro;m &alpha;&ndash;&beta; &unknownname; end"
    for before in ("", '<!DOCTYPE article PUBLIC "-//NLM//DTD" "journalpublishing.dtd">'):
        (found,) = figures(fig("f1", "", caption), before=before)
        assert found.caption == "5 µm α–β end"


def test_xml_that_is_too_large_too_deep_or_broken_is_refused() -> None:
    for data in (b"", b"<article>", b"\x00\xff", b"<article>" + b"<p>" * 5_000, article("&#1;")):
        with pytest.raises(XmlError):
            parse(data)
    with pytest.raises(XmlError, match="more than the limit of 10"):
        parse(b"<article></article>", most_bytes=10)


def test_an_archive_leads_nowhere(tmp_path: Path) -> None:
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(png())
    link, device = tarfile.TarInfo("PMC1/f1.jpg"), tarfile.TarInfo("PMC1/f2.jpg")
    link.type, link.linkname = tarfile.SYMTYPE, str(secret)
    device.type = tarfile.CHRTYPE
    body = fig("f1", "", "One.") + fig("f2", "", "Two.") + fig("f3", "", "Three.")
    folder = tmp_path / "data"
    folder.mkdir()
    content = {"PMC1/a.nxml": article(body), "../../f3.jpg": png(), "/PMC1/f3.jpg": png()}
    pack(folder / "PMC1.tar.gz", content, link, device)
    assert [getattr(one, "reason", "kept") for one in read(folder, {})] == ["image missing"] * 3
    assert sorted(path.name for path in folder.rglob("*")) == ["PMC1.tar.gz"]
    assert not (tmp_path.parent / "f3.jpg").exists()


def test_archives_have_limits(tmp_path: Path) -> None:
    pack(tmp_path / "a.tar.gz", {f"PMC1/{n}.txt": b"x" * 100 for n in range(20)})
    tight = [
        layout.Limits(members=5),
        layout.Limits(bytes=500),
    ]
    for limits in tight:
        (source,) = layout.archive(tmp_path / "a.tar.gz", tmp_path, limits)
        assert source.fault.startswith("archive refused: more than")
    pack(tmp_path / "b.tar.gz", {"PMC1/a.nxml": b"x" * 5_000})
    (source,) = layout.archive(tmp_path / "b.tar.gz", tmp_path, layout.Limits(member_bytes=1_000))
    assert source.fault == "archive refused: a member of 5000 bytes"
    for name, data in (("c.tar.gz", b"no archive"), ("d.tar.gz", (tmp_path / "a.tar.gz").read_bytes()[:60])):
        tmp_path.joinpath(name).write_bytes(data)
        (source,) = layout.archive(tmp_path / name, tmp_path)
        assert source.fault.startswith("archive unreadable")


# --- panels and modality -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("caption", "lead", "parts", "confidence"),
    [
        ("Lungs. (A) Left. (B) Right.", "Lungs.", [("A", "Left."), ("B", "Right.")], 0.9),
        ("(a) Left, (b–d) right.", "", [("A", "Left"), ("BCD", "right.")], 0.9),
        ("Lungs. A, left. B, right.", "Lungs.", [("A", "left."), ("B", "right.")], 0.6),
        (
            "(A) One. (B) As in (A). (C and D) Rest.",
            "",
            [("A", "One."), ("B", "As in (A)."), ("CD", "Rest.")],
            0.9,
        ),
        ("(A) One. (B) Two. (D) Four.", "", [("A", "One."), ("B", "Two. (D) Four.")], 0.7),
        ("A lung without parts.", "A lung without parts.", [], 0.0),
        ("Cells of lungs (A) and livers (B).", "Cells of lungs (A) and livers (B).", [], 0.0),
        ("Vitamin (B) and (C) were given.", "Vitamin (B) and (C) were given.", [], 0.0),
    ],
)
def test_panels(caption: str, lead: str, parts: list[tuple[str, str]], confidence: float) -> None:
    found = split_panels(caption)
    assert found.lead == lead
    assert [("".join(letters), text) for letters, text in found.parts] == parts
    assert found.confidence == confidence


@pytest.mark.parametrize(
    ("caption", "named"),
    [
        ("Axial CT of the chest.", ("CT", 0.9)),
        ("Ct values of the PCR.", ("", 0.0)),
        ("CT values by group.", ("", 0.0)),
        ("Chest X-ray with an opacity.", ("chest X-ray", 0.9)),
        ("T2-weighted MR image.", ("MRI", 0.9)),
        ("Hematoxylin and eosin, x40.", ("histology", 0.9)),
        ("CT scan and Kaplan-Meier curves.", ("CT", 0.6)),
        ("MRI (left) and CT (right).", ("MRI", 0.3)),
        ("Flow chart of the study.", ("diagram", 0.9)),
        ("Map of the islands.", ("", 0.0)),
    ],
)
def test_modality_by_the_words_of_a_caption(caption: str, named: tuple[str, float]) -> None:
    assert modality.by_caption(caption) == named


def test_an_installed_classifier_is_found_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Point:
        name = "by-pixels"

        def load(self) -> Any:
            return lambda caption, picture: (f"seen {Path(picture).name}", 0.8)

    monkeypatch.setattr(
        modality, "entry_points", lambda group: [Point()] if group == "medkit.modality" else []
    )
    write(tmp_path, **{"a.xml": article(fig("f1", "", "Axial CT.")), "f1.png": png()})
    for certain, expected in ((0.7, "seen f1.png"), (0.9, None)):
        (record,) = read(tmp_path, {"classifier": "by-pixels", "certain": certain})
        assert isinstance(record, Record) and record.facts.get("modality") == expected


def test_a_figure_may_also_be_a_record_for_the_teacher(tmp_path: Path) -> None:
    body = fig("f1", "", "Axial CT.") + '<fig id="f2"><graphic xlink:href="f1"/></fig>'
    write(tmp_path, **{"a.xml": article(body), "f1.png": png()})
    for give, expected in (
        (["caption"], [("a/f1", "Axial CT."), ("a/f2", None)]),
        (["record"], [("a/f1:facts", None), ("a/f2", None)]),
        (["caption", "record"], [("a/f1", "Axial CT."), ("a/f1:facts", None), ("a/f2", None)]),
    ):
        found = [one for one in read(tmp_path, {"give": give}) if isinstance(one, Record)]
        assert [(one.id, one.caption) for one in found] == expected
        assert found[0].facts["caption"] == "Axial CT."


def test_damaged_articles_never_stop_the_reader(tmp_path: Path) -> None:
    whole = article(f"<p>See {ref('f1', 'Fig. 1')}–{ref('f5', '5')}.</p>{FIVE}", CC_BY)
    pieces = (
        b"<fig>",
        b"</p>",
        b"<fig-group>",
        b"<alternatives>",
        b"&nbsp;",
        b"\x00",
        b"\xff",
        b"<xref rid='f2 f3'/>",
    )
    random = Random(0)
    for number in range(300):
        data = bytearray(whole)
        for _ in range(random.randint(1, 3)):
            place = random.randrange(len(data))
            if random.random() < 0.5:
                del data[place : place + random.randint(1, 40)]
            else:
                data[place:place] = random.choice(pieces)
        tmp_path.joinpath(f"{number}.xml").write_bytes(bytes(data))
    fates = list(read(tmp_path, {}))
    articles = {(one.record if isinstance(one, Rejected) else one.id).split("/")[0] for one in fates}
    assert articles == {str(number) for number in range(300)}


def test_panels_are_split_on_demand(tmp_path: Path) -> None:
    write(tmp_path, **{"a.xml": article(fig("f1", "", "(A) Left. (B) Right.")), "f1.png": png()})
    (plain,) = read(tmp_path, {})
    (split,) = read(tmp_path, {"panels": True})
    assert isinstance(plain, Record) and isinstance(split, Record)
    assert "panels" not in plain.facts
    assert split.facts["panels"] == [
        {"letters": ["A"], "text": "Left."},
        {"letters": ["B"], "text": "Right."},
    ]


def test_reading_a_wrapped_article() -> None:
    inner = article(fig("f1", "", "One.")).split(b"?>", 1)[1]
    found: Article = read_article(parse(b"<OAI><record>" + inner + b"</record></OAI>"))
    assert [one.caption for one in found.figures] == ["One."]


def test_the_shipped_domain_makes_captions_and_questions_of_its_fixture(tmp_path: Path) -> None:
    folder = Path(__file__).resolve().parent.parent / "domains" / "pmc-biomed"
    domain = yaml.safe_load((folder / "domain.yaml").read_text(encoding="utf-8"))
    card = yaml.safe_load((folder / "teacher.yaml").read_text(encoding="utf-8"))
    result = ingest({"domain": domain, "data": str(folder / "fixture")}, {}, tmp_path / "data")
    assert result["kinds"] == {"caption": 7, "record": 7}
    assert result["rejected"] == {"third-party figure": 1}
    licences = [sample.source["licence"] for sample in open_dataset(tmp_path / "data")]
    assert Counter(licences) == {"CC BY 4.0": 8, "CC0 1.0": 6}
    taught = teach({"teacher": card}, {"ingest": tmp_path / "data"}, tmp_path / "taught")
    assert taught["records"] == 14 and taught["kinds"]["question"] >= 2
