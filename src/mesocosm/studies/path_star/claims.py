"""The claims of the paper with their rules in words and their controls."""

from mesocosm import lab
from mesocosm.studies.path_star import rules

CLAIMS = [
    lab.Claim(
        id="C1",
        statement="Shown the true answer so far in training, neither a transformer nor a state space model finds paths "
        "more often than by guessing the first node.",
        rule="seeds that follow edges (more than 0.99 right at the worst later node, after the true ones): |mean share "
        "of right paths - 1/d| < 0.05 and 95 % upper bound < 1/d + 0.10, greedy, on 1,000 new graphs",
        paper="1/d on G(2,5), G(5,5), G(10,5), G(20,5) and others, from scratch, for Mamba and for fine-tuned "
        "GPT-2-large too",
        judge=rules.on_every_star(rules.judge_chance),
        control=lab.Control(
            statement="the same network on l = 3, where the first node is the goal's predecessor: above 0.95",
            judge=rules.on_every_star(rules.judge_chance_control),
        ),
        unit="right paths above 1/d",
        cells=("standard", "ssm", "short", "first node"),
    ),
    lab.Claim(
        id="C2",
        statement="Such a transformer only follows edges from the node it is shown: set on a wrong arm, it stays.",
        rule="95 % lower bounds of the share of wrong arms followed > 0.95, of right answers at the worst later node > "
        "0.99 and of first steps to a neighbour of the start > 0.99; |right at the first node - 1/d| < 0.05",
        paper="later nodes are learned at once by the cheat, the first stays at chance",
        judge=rules.on_every_star(rules.judge_cheat),
        control=lab.Control(
            statement="trained in reverse it does not go from a wrong arm's first node to its end: below 0.05",
            judge=rules.on_every_star(rules.judge_cheat_control),
        ),
        unit="share of wrong arms followed",
        cells=("standard", "reversed"),
    ),
    lab.Claim(
        id="C3",
        statement="The same transformer, data and training find the path when it is written from the goal on.",
        rule="95 % lower bound of the share of right paths > 0.95",
        paper="about 100 %",
        judge=rules.on_every_star(rules.judge_reversed),
        control=lab.Control(
            statement="written forwards: below 1/d + 0.10", judge=rules.on_every_star(rules.judge_reversed_control)
        ),
        unit="share of right paths",
        cells=("standard", "reversed"),
    ),
    lab.Claim(
        id="C4",
        statement="The same transformer finds the path forwards when it is not shown the answer in training.",
        rule="paired over seeds, 95 % lower bound of the share of right paths without a teacher minus with one > 0.25",
        paper="solves some graphs, chiefly with a larger pretrained model; several stay at chance",
        judge=rules.on_every_star(rules.judge_teacherless),
        control=lab.Control(
            statement="a transformer of too few layers stays below 1/d + 0.10",
            judge=rules.on_every_star(rules.judge_teacherless_control),
        ),
        unit="right paths, difference",
        cells=("standard", "teacherless", "shallow"),
    ),
    lab.Claim(
        id="C5",
        statement="Without a teacher, nodes are learned from the goal backwards.",
        rule="of the seeds with more than 0.95 right paths, in at least 80 % every node is right in more than 0.9 of "
        "the graphs at a strictly later step than the node after it",
        paper="seen by later work",
        judge=rules.on_every_star(rules.judge_order),
        control=lab.Control(
            statement="with a teacher, in no seed all the way to the first node",
            judge=rules.on_every_star(rules.judge_order_control),
        ),
        unit="share of seeds",
        cells=("standard", "teacherless"),
    ),
]
