"""Whatever is given: it is refused before anything is touched, in words that help, or does what was meant; and what ran goes on."""

from __future__ import annotations

from inputs_judge import Case, Judge


def test_input_is_refused_or_does_what_was_meant(judge: Judge, case: Case):
    verdict = judge.judge(case)
    assert not verdict.faults, f"{verdict.outcome}: {'; '.join(verdict.faults)}\n{verdict.message[-4000:]}"
