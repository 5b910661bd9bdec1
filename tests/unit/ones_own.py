import sys

import knockgrid as kg


class Halved(kg.Source):
    label = "halved()"

    def value(self, where):
        return where.base / 2


class SinkOff(kg.Intervention):  # the last position may not attend to BOS
    kind, sites, edges = "sink_off", (), ("last", "bos")

    def default_name(self):
        return "sink_off"

    def no_op(self, itself):
        return SinkOff(heads=(), window=self.window)

    def edits(self, place):
        ends = place.query_pos("last"), place.pos("bos")
        return (kg.passes.Edit("attn_scores", place.layer, *ends, self.heads),)


@kg.Figure.of()
def bars(table, metric="sym", *, ax=None, limits=None, title=None):
    label = kg.figures.metric_label(table, metric)
    return kg.grid(table, metric).mean(axis=1).plot.bar(ax=ax, ylabel=label, rot=0)


kl, back = kg.kl.formula, kg.divergences.kl_reverse.formula
sym = kg.Divergence("sym", "Jeffreys divergence", lambda pair: kl(pair) + back(pair))
if __name__ == "__main__":
    prompt = kg.Prompt("the tower of rome is in the", spans={"subject": "tower of rome"})
    rows = [kg.patch("mlp_out", "last", Halved(), name="half"), SinkOff()]
    table = kg.sweep(sys.argv[1], prompt, rows, metrics=["js", sym], out="run", progress=False)
    assert kg.verify("run", known=[sym, Halved, SinkOff]).ok
    kg.save(bars(table), "bars")
