"""The claims of the paper with their rules in words and their controls."""

from mesocosm import lab
from mesocosm.studies.repeat_after_me import rules

CLAIMS = [
    lab.Claim(
        id="C1",
        statement="A transformer learns to copy from far fewer examples than a state space model or an LSTM.",
        rule="examples until 0.9 of the strings of the greatest training length are copied: 95 % lower bound of the "
        "geometric mean of state space model / Hard-ALiBi transformer, paired over seeds, > 1; who does not get there "
        "counts with the whole budget, and the ratio as at most 1 where the transformer does not, which may be in half "
        "of the seeds",
        paper="about 100 times fewer than Mamba at strings of 300 letters; the LSTM never learns them",
        judge=rules.judge_examples,
        control=lab.Control(
            statement="look-up with the key before the string, where a state suffices: the rule must not hold",
            judge=rules.judge_examples_control,
        ),
        unit="times the examples",
        cells=("copy/", "prefix/"),
    ),
    lab.Claim(
        id="C2",
        statement="A Hard-ALiBi transformer copies longer strings than it was trained on; recurrent models do not.",
        rule="character accuracy at twice the greatest training length: 95 % lower bound of Hard-ALiBi - state space "
        "model > 0.3",
        paper="trained up to 50 letters, Hard-ALiBi is near perfect up to 1,000, ALiBi, NoPE and RoPE decay one after "
        "another, Mamba and LSTM fall to zero almost at once",
        judge=rules.judge_length,
        control=lab.Control(
            statement="the same at the training length: the whole interval within 0.05 of 0",
            judge=rules.judge_length_control,
        ),
        unit="in character accuracy",
        cells=("short/",),
    ),
    lab.Claim(
        id="C3",
        statement="A state of 2^b values copies at most 2^b of the D^L strings, and a larger state copies better.",
        rule="a machine that keeps m of L letters copies exactly D^(m - L) of all strings; trained state space models: "
        "95 % lower bound of the mean Spearman correlation of character accuracy, after as many steps, and state size "
        "> 0",
        paper="theorem 2.7: the error is above 1 - 2^b / D^L",
        judge=rules.judge_state,
        control=lab.Control(
            statement="transformers, which keep the whole string: above the bound of a state one letter too small",
            judge=rules.judge_state_control,
        ),
        unit="",
        cells=("copier", "short/ssm", "state/", "copy/hard-alibi"),
    ),
    lab.Claim(
        id="C4",
        statement="With the key after the string transformers look it up better, with the key before it they do not.",
        rule="share of right answers at twice the greatest training length: 95 % lower bound of Hard-ALiBi - state "
        "space model > 0 for the suffix key",
        paper="suffix key: transformers win and extrapolate; prefix key: Mamba generalizes perfectly in length",
        judge=rules.judge_shape,
        control=lab.Control(
            statement="the prefix key: 95 % upper bound of the same difference < 0.05", judge=rules.judge_shape_control
        ),
        unit="in answers right",
        cells=("suffix/", "prefix/"),
    ),
    lab.Claim(
        id="C5",
        statement="Transformers copy by matching n-grams: one n-gram that stands twice breaks the copy.",
        rule="string accuracy of Hard-ALiBi at the greatest training length: 95 % lower bound of its fall from the "
        "shortest to the longest duplicated n-gram > 0.1",
        paper="the accuracy holds up to n = 4 and drops from n = 5 on",
        judge=rules.judge_duplicates,
        control=lab.Control(
            statement="no duplicate against the shortest, and the state space models: 95 % upper bound of the fall "
            "< 0.1",
            judge=rules.judge_duplicates_control,
        ),
        unit="in string accuracy",
        cells=("copy/",),
    ),
]
