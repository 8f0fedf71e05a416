"""The claims of the paper with their rules in words and their controls."""

from mesocosm import lab
from mesocosm.studies.stacking_midas import rules

CLAIMS = [
    lab.Claim(
        id="C1",
        statement="Growing by copies of the middle block gives a lower loss than training at full depth with as many "
        "operations, and than growing by copies of the last block.",
        rule="paired over seeds, 95 % upper bounds of the held-out loss on the mixture, MIDAS minus baseline and MIDAS "
        "minus GradStack, < 0; the baseline's counted operations within 2 % of MIDAS's",
        paper="up to 1.39 times faster (Prop-1) at nearly the same or slightly worse perplexity; MIDAS better than "
        "GradStack",
        judge=rules.judge_loss,
        control=lab.Control(
            statement="growing by fresh random blocks in the same places is worse than MIDAS", judge=rules.judge_random
        ),
        unit="nats",
        cells=("baseline", "midas", "gradstack", "random"),
    ),
    lab.Claim(
        id="C2",
        statement="At equal loss on filler, MIDAS is better at variables assigned through other variables.",
        rule="95 % lower bound of MIDAS's excess accuracy at depths of at least 1 over the baseline at equal filler "
        "loss, mean over the measurements at full depth, > 0.03",
        paper="large gains on open-book questions, arithmetic and reasoning primitives at 1B, 2B and 8B",
        judge=rules.judge_reasoning,
        control=lab.Control(
            statement="the same excess on facts known by heart is within 0.03 of 0", judge=rules.judge_memory
        ),
        unit="accuracy",
        cells=("baseline", "midas"),
    ),
    lab.Claim(
        id="C3",
        statement="Fine-tuned on few assignments of the greatest depth, MIDAS is better than the baseline.",
        rule="paired over seeds, 95 % lower bound of the difference of held-out accuracies at the fewest examples > 0",
        paper="yes for fine-tuned primitives, most at depths 1 and 2",
        judge=rules.judge_fine_tuning,
        unit="accuracy",
        cells=("fine-tuned",),
    ),
    lab.Claim(
        id="C4",
        statement="Grown networks resemble looped ones: middle blocks do alike.",
        rule="functional similarity of blocks, paired over seeds: 95 % lower bounds of MIDAS minus baseline, mean over "
        "pairs of blocks 2 .. k - 1, > 0.1, and of GradStack's minus MIDAS's similarity of the last two blocks over "
        "that of the first two, > 0",
        paper="MIDAS: middle blocks alike, symmetric around the middle; GradStack: lopsided to the last blocks",
        judge=rules.judge_similarity,
        control=lab.Control(
            statement="right after a growth, a copy's similarity to its original is 1, and a fresh block's below 0.1",
            judge=rules.judge_copies,
        ),
        unit="cosine",
        cells=("baseline", "midas", "gradstack"),
    ),
]
