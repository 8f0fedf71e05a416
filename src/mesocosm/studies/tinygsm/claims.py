"""The claims of the paper with their rules in words and their controls."""

from mesocosm import lab
from mesocosm.studies.tinygsm import rules

CLAIMS = [
    lab.Claim(
        id="C1",
        statement="A generator whose programs a verifier picks from beats the generator alone, and the teacher.",
        rule="accuracy of the verifier's choice from all candidates, paired over seeds: 95 % lower bounds of verifier "
        "- greedy decoding and of verifier - teacher > 0",
        paper="68.2 % alone, 81.5 % with a verifier and 48 candidates (1.3B and 1.3B); teacher, GPT-3.5, 77.4 %",
        judge=rules.judge_verifier,
        control=lab.Control(
            statement="labels shuffled among candidates: verifier - blind choice does not differ from 0",
            judge=rules.judge_shuffled,
        ),
        unit="share of problems",
        cells=("generator", "verifier"),
    ),
    lab.Claim(
        id="C2",
        statement="A vote among candidates does not bring this gain, since errors learned from the teacher are "
        "consistent.",
        rule="paired over seeds: 95 % lower bound of verifier - majority > 0; no seed's verifier is above the oracle",
        paper="stated; the oracle finds a right one among 32 for 94 % of the problems",
        judge=rules.judge_majority,
        control=lab.Control(
            statement="errors as frequent, but the same on all families: 95 % lower bound of majority - verifier > "
            "-0.01",
            judge=rules.judge_independent,
        ),
        unit="share of problems",
        cells=("verifier",),
    ),
    lab.Claim(
        id="C3",
        statement="A generator's accuracy grows with the number of unique examples, and saturates.",
        rule="greedy decoding after equal steps, mean of chains and comparisons: 95 % upper bound of the gain by the "
        "last doubling - half of that by the first < 0, paired over seeds; Spearman's correlation of examples and mean "
        "accuracy > 0.9",
        paper="10 points from the second third of the data, little from the last",
        judge=rules.judge_data,
        control=lab.Control(
            statement="as many examples of unknown starts alone: 95 % upper bound of the accuracy on chains and "
            "comparisons < 0.5",
            judge=rules.judge_one_family,
        ),
        unit="share of problems",
        cells=("data",),
    ),
    lab.Claim(
        id="C4",
        statement="A verifier needs its whole network trained, from the generator's weights.",
        rule="accuracy of the choice from all candidates, paired over seeds: 95 % lower bounds of verifier - head only "
        "and verifier - from scratch > 0; candidates of one checkpoint and labels at the last token are reported",
        paper="head alone and from scratch significantly worse; one checkpoint 78.9 %, three 81.5 %; labels at all "
        "tokens better than at the last",
        judge=rules.judge_training,
        control=lab.Control(
            statement="all labels 1: verifier - blind choice does not differ from 0", judge=rules.judge_all_right
        ),
        unit="share of problems",
        cells=("verifier",),
    ),
    lab.Claim(
        id="C5",
        statement="Parameters are better spent on the verifier than on the generator.",
        rule="large verifier on a small generator - small verifier on a large generator, paired over seeds: reported "
        "with its interval and not judged, two widths being too few; inconclusive by design",
        paper="76.1 % against 71.7 % (125M and 1.3B)",
        judge=rules.judge_sizes,
        unit="share of problems",
        cells=("verifier",),
    ),
]
