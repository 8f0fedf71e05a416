"""The claims of the paper with their rules in words and their controls."""

from mesocosm import lab
from mesocosm.studies.repeat_after_me_pretrained import rules

CLAIMS = [
    lab.Claim(
        id="C6",
        statement="Pretrained transformers look up a phone book and copy text better than pretrained state space "
        "models of like size, though these predict text no worse.",
        rule="exact answers to the same questions, transformers - state space models: 95 % lower bounds > 0 for books "
        "of at least 70 entries, and for the longest passages; and 95 % upper bound of the state space models' loss "
        "on these passages - the transformers', in nats per byte, < 0.05",
        paper="from 70 entries on, Pythia of 410 million parameters beats Mamba of 2.8 billion; the largest Mamba "
        "copies no shuffled text of 300 tokens; Mamba has the lower perplexity",
        judge=rules.judge_lead,
        control=lab.Control(
            statement="without the line that is asked for, exact answers of all models: 95 % upper bound < 0.05, or no "
            "right one among fewer than 60 questions",
            judge=rules.judge_absent,
        ),
        unit="in exact answers",
        cells=("phone book", "text"),
    ),
]
