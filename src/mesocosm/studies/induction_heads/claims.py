"""The claims of the paper with their rules in words and their controls."""

from mesocosm import lab
from mesocosm.studies.induction_heads import rules

CLAIMS = [
    lab.Claim(
        id="C1",
        statement="Two attention layers end at the Bayes rule, which counts bigrams.",
        rule="excess: KL(truth || model) above that of the bigram rule, in units of the gap between unigram and bigram "
        "rule, at the end: 95 % upper bound of the mean < 0.2",
        paper="the test loss of two layers approaches that of the Bayes predictor (figure 2)",
        judge=rules.judge_end,
        control=lab.Control(
            statement='one layer, which cannot put "symbol before" and "same symbol" together: mean excess > 0.8',
            judge=rules.judge_end_control,
        ),
        unit="of the gap",
        cells=("dirichlet", "one layer", "strategies"),
    ),
    lab.Claim(
        id="C2",
        statement="Predictions are uniform first, then those of unigram counts, then those of bigram counts.",
        rule="in 8 of 10 seeds the strategy of least KL(model || strategy) is uniform, unigram, bigram, in this order "
        "without return, and unigram for at least a tenth of the training",
        paper="three phases, the last drop sharp (figure 1)",
        judge=rules.judge_phases,
        control=lab.Control(
            statement="doubly stochastic chains, whose symbols are equally frequent: no seed has a unigram phase",
            judge=rules.judge_phases_control,
        ),
        unit="of seeds",
        cells=("dirichlet", "doubly stochastic", "strategies"),
    ),
    lab.Claim(
        id="C3",
        statement="The unigram solution delays the bigram solution: without its use, the bigrams come sooner.",
        rule="t_big: first step at which the bigram rule is nearest. Paired over seeds, 95 % lower bound of the mean "
        "log(t_big on Dirichlet chains / t_big on doubly stochastic chains) > 0",
        paper="faster convergence where unigrams carry no signal",
        judge=rules.judge_delay,
        control=lab.Control(
            statement="the same starts on other Dirichlet chains: the interval of the log ratio contains 0",
            judge=rules.judge_delay_control,
        ),
        unit="in log t_big",
        cells=("dirichlet", "doubly stochastic", "other data"),
    ),
    lab.Claim(
        id="C4",
        statement="The first layer becomes a previous-token head when the last drop comes, and not before.",
        rule="t_head: first step at which layer 1's mean attention to the symbol before passes half of its final "
        "value. |t_head - t_big| < t_big / 4 in 8 of 10 seeds, and 95 % lower bound of their Spearman correlation > 0",
        paper="the layers align at the drop (section 3)",
        judge=rules.judge_heads,
        control=lab.Control(
            statement="layer 1's attention to two symbols back ends below 0.2", judge=rules.judge_heads_control
        ),
        unit="of seeds",
        cells=("dirichlet", "minimal model"),
    ),
    lab.Claim(
        id="C5",
        statement="On chains of order 2, unigrams, bigrams and trigrams are learned in turn.",
        rule="in 8 of 10 seeds the nearest strategy is uniform, unigram, bigram, trigram, in this order without return",
        paper="the same for n-grams, with more than one head (section 5)",
        judge=rules.judge_second_order,
        unit="of seeds",
        cells=("second order",),
    ),
]
