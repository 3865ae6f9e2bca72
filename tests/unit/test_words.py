"""Text that users and contributors read is plain English, in the terms that they would search for, in lines of a readable length."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from conftest import ROOT, tracked_files

COLUMNS = 120


class Term(NamedTuple):
    """A phrase that is not to be used: what to write instead, and why."""

    phrase: str
    instead: str
    why: str


# Phrases are regular expressions, compared without regard to case.
TERMS = (
    Term(r"to be had", "available", "operators search for 'not available'"),
    Term(r"\banew\b", "again, or recreated", "'made anew' may mean created, restarted or re-created: say which"),
    Term(r"\bnowhere\b", "not found, or not available", "a message says where was looked"),
    Term(r"\bsomebody\b", "a user, or another container", "a message names who it was"),
    Term(r"\bnobody\b(?!`)", "no user, or no host", "a message names who is meant"),
    Term(r"\b(no|a) texts?\b|\blists? of texts\b", "a string", "the name of the type, as YAML and Ansible have it"),
    Term(r"\b(no|a) mappings?\b", "a dictionary", "the name of the type, as Ansible has it"),
    Term(r"\bwhole numbers?\b", "an integer", "the name of the type, as Ansible has it"),
    Term(r"(?<![\"(])\bours\b|\bours\b(?![\")])", "the stack's, or Slipway's", "a reader does not know who 'we' are"),
    Term(r"\blast requests (have )?come in\b|\brequests (have )?come in\b", "in-flight requests", "the term of proxies and balancers"),
    Term(r"\bhas no value\b", "is not set", "the term of Ansible's own messages"),
    Term(r"\bwhat is there\b", "what exists", "it does not say what or where"),
    Term(r"\b(told|tells?)\b", "reported, listed, or says", "programs report; people tell"),
    Term(r"\bsaid\b", "reported, or specified", "programs report; people have said"),
    Term(r"\bmend(s|ed|ing)?\b", "fix, or repair", "operators search for 'fix'"),
    Term(r"\bas ever\b", "as usual", "plain English"),
    Term(r"\bway out\b", "outbound access", "the term of networks and firewalls"),
    Term(r"\bway back\b", "rollback, or undo", "the term of releases"),
    Term(r"\bbesides?\b", "next to, together with, or also", "two words with two meanings that are often confused"),
    Term(r"(?<!there )\bis no (?!longer\b|more than\b|less than\b)", "is not a", "'X is no Y' has to be read twice"),
    Term(r"\b(stands?|stood) (in|on|at|there|here|below|above|behind|for itself)\b", "is in, or is listed in", "files do not stand"),
    Term(r"\bbury|\bburied\b", "reap", "zombie processes are reaped"),
    Term(r"\bloosen(s|ed|ing)?\b", "hardening exception", "the name of the input"),
    Term(r"\blets? [\w ]{,20}\bin\b", "allow", "the term of firewalls"),
    Term(r"\bmisspelt\b", "misspelled", "one spelling in the whole project"),
    Term(r"\bbears? (a|the|that|its)\b", "has", "plain English"),
    Term(r"\bno host was changed\b", "Nothing was touched", "one sentence for what is refused before the first change"),
    Term(r"^\s*- name: (\w+ \| )*(have|see)\b", "what the task does: Create, Update, Wait until", "a task's name says its outcome"),
)

# Written by programs, by others, or for customers of the example.
FOREIGN = (
    "examples/support_desk/backend/support_desk/articles/",
    "LICENSE",
    "requirements/",
    "images/backup/requirements.txt",
    "examples/support_desk/backend/requirements",
    "package-lock.json",
)
SUFFIXES = ("", ".md", ".py", ".yml", ".j2", ".sh", ".toml", ".cfg", ".sql", ".html", ".conf", ".txt")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def written_by_people() -> list[Path]:
    return [
        path
        for path in tracked_files()
        if path.suffix in SUFFIXES and path.name != Path(__file__).name and not any(part in name_of(path) for part in FOREIGN)
    ]


def prose(path: Path, text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines that people read, numbered: of Python, comments, strings of several words, and names of functions as words."""
    if path.suffix != ".py" and not text.startswith("#!/usr/bin/env python"):
        yield from enumerate(text.splitlines(), 1)
        return
    words = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
    before = ""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in words and not re.fullmatch(r"""["']\w+["']""", token.string):
            yield from enumerate(token.string.splitlines(), token.start[0])
        elif before in ("def", "class"):
            yield token.start[0], token.string.replace("_", " ")
        before = token.string


def found(path: Path, text: str) -> list[str]:
    """Return what a file should not say, a line each, with the terms to use instead."""
    problems = []
    for number, line in prose(path, text):
        for term in TERMS:
            hit = re.search(term.phrase, line, flags=re.IGNORECASE)
            if hit:
                problems.append(f"{name_of(path)}:{number}: '{hit[0]}': write {term.instead} ({term.why})")
    return problems


@pytest.mark.parametrize("path", written_by_people(), ids=name_of)
def test_text_uses_the_terms_of_the_field(path: Path):
    problems = found(path, path.read_text())
    assert not problems, "\n".join(problems)


def test_the_rule_finds_each_phrase_wherever_it_is_written():
    for sentence in (
        "version 2 cannot be had here, but is to be had elsewhere",
        "the container is made anew",
        "value is no text but int",
        "Let the last requests come in",
        "it lies beside the other",
        "what was told before",
        "somebody else's container",
        "it is damaged. No host was changed",
    ):
        assert found(ROOT / "page.md", f"First line.\n{sentence}.\n"), sentence
        assert found(ROOT / "module.py", f'"""{sentence}."""\n'), sentence
        assert found(ROOT / "module.py", f"# {sentence}.\nx = 1\n"), sentence
    assert found(ROOT / "tasks.yml", "---\n- name: tunnel | Have a key\n")
    assert found(ROOT / "module.py", "def test_it_is_made_anew():\n    pass\n")
    assert not found(ROOT / "module.py", "said = 1\n"), "names of variables are not prose"
    assert not found(ROOT / "page.md", "There is no such image. It is no longer used.\n")


PAGES = [path for path in written_by_people() if path.suffix == ".md"]


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_lines_of_pages_fit_a_terminal(path: Path):
    """No line is exempt: a table with longer rows is a list, and a link's address goes on a line of its own."""
    long = [f"{name_of(path)}:{number}: {len(line)}" for number, line in enumerate(path.read_text().splitlines(), 1) if len(line) > COLUMNS]
    assert not long, f"at most {COLUMNS} columns: " + ", ".join(long)
