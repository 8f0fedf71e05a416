"""The claims, with the rules that judge them."""

from mesocosm import lab
from mesocosm.studies.bandit_exploration import rules

CLAIMS = [
    lab.Claim(
        id="C1",
        statement="In most prompt designs a language model fails to explore a bandit: it never returns to the best "
        "arm, or plays as if uniformly.",
        rule="a design clearly fails where the lower 95 % end of its SuffFailFreq(T/2) or of its K MinFrac(T) is above "
        "the upper ends of both UCB's and Thompson sampling's at the same T; at least 80 % of the designs must. "
        "Designs that neither clearly fail nor are by estimate below these ends make the upper end of the share",
        paper="every configuration of GPT-3.5 and Llama-2-13B fails, and all but one of GPT-4",
        judge=rules.judge_failures,
        control=lab.Control(
            statement="UCB and Thompson sampling, reading and answering the same prompts, do not clearly fail",
            judge=rules.judge_failures_control,
        ),
        unit="of the designs",
        cells=("local/", "endpoint/", "reference/", "text/"),
    ),
    lab.Claim(
        id="C2",
        statement="Designs fail in one of two opposite ways, and none gets to the corner of UCB and Thompson sampling.",
        rule="in the plane of SuffFailFreq(T/2) and K MinFrac(T): no design has both estimates below the upper ends of "
        "UCB and Thompson sampling, none is in doubt, and none clearly fails both ways",
        paper="no failing configuration comes near the corner; only GPT-4 in one design does",
        judge=rules.judge_corners,
        control=lab.Control(
            statement="through the same prompts, UCB and Thompson sampling are in the corner, Greedy clearly fails by "
            "suffix failure alone and uniform play by K MinFrac alone",
            judge=rules.judge_corners_control,
        ),
        unit="designs",
        cells=("local/", "endpoint/", "reference/", "text/"),
    ),
    lab.Claim(
        id="C3",
        statement="Rewards cannot tell a player that fails from one that explores, where suffix failures can.",
        rule="simulated games: the area under the curve of telling Thompson sampling from Greedy by the mean reward of "
        "a game has its 95 % interval in [0.35, 0.65], while their intervals of SuffFailFreq(T/2) are disjoint",
        paper="median rewards overlap at T = 100; surrogate statistics separate",
        judge=rules.judge_reward,
        control=lab.Control(
            statement="Thompson sampling with other draws has an overlapping interval of SuffFailFreq, and rewards do "
            "tell UCB from uniform play (area > 0.65)",
            judge=rules.judge_reward_control,
        ),
        unit="area under the curve",
        cells=("simulated/hard/",),
    ),
    lab.Claim(
        id="C4",
        statement="A summarised history changes how a model plays; a higher temperature trades one failure for the "
        "other.",
        rule="means over pairs of designs that differ in one letter, paired by game: the 95 % interval of the change "
        "of SuffFailFreq(T/2) or of K MinFrac(T) from raw to summarised excludes 0 (not supported where both lie "
        "within 0.05 of 0); from temperature 0 to 1 K MinFrac rises and GreedyFrac falls, intervals excluding 0",
        paper="the only success needs a summarised history; temperature 1 is more uniform",
        judge=rules.judge_prompts,
        control=lab.Control(
            statement="one design played again in other games changes neither statistic",
            judge=rules.judge_prompts_control,
        ),
        unit="change",
        cells=("local/", "endpoint/", "again/"),
    ),
    lab.Claim(
        id="C5",
        statement="Models that fail play like Greedy.",
        rule="models behind an endpoint only: GreedyFrac averaged over designs that clearly fail by suffix failure, on "
        "a scale from Thompson sampling's (0) to Greedy's (1) at the same T: 95 % lower bound > 0.5",
        paper="GreedyFrac of GPT-3.5 is near Greedy's",
        judge=rules.judge_greedy,
        control=lab.Control(
            statement="Thompson sampling through the same prompts is below 0.5", judge=rules.judge_greedy_control
        ),
        unit="likeness",
        cells=("endpoint/", "reference/", "text/"),
    ),
]
