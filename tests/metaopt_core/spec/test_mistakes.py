# ruff: noqa: E501
"""Mistakes in a pipelines file, one at a time, and the exact lines that the user reads about each."""

import os
from pathlib import Path

import pytest

from metaopt_core.errors import UserError
from metaopt_core.spec.loader import SpecError, load

SINUSOID = """\
pipelines:
  waves:
    seed: 1
    generate:
      distribution: sinusoid
      amplitude: [0.1, 5.0]
    train:
      model:
        name: mlp
        hidden: [40, 40]
      iterations: 100
      shots: 5
      queries: 10
      outer:
        lr: 1e-3
    evaluate:
      steps: 3
    log:
      register_as: waves
"""

OMNIGLOT = """\
pipelines:
  letters:
    generate:
      distribution: omniglot
    train:
      model:
        name: conv4
      iterations: 100
      ways: 5
      shots: 1
      queries: 1
"""

# A right file, a text in it, what replaces that text, and what is then said. `waves` begins in line 2 and `letters` in line 2.
MISTAKES = [
    pytest.param(
        SINUSOID,
        "lr: 1e-3",
        "lrr: 1e-3",
        ["pipelines.yaml:15:9: waves.train.outer.lrr: unknown key, did you mean lr?"],
        id="misspelt-key",
    ),
    pytest.param(
        SINUSOID,
        "    evaluate:",
        "    evalute:",
        ["pipelines.yaml:16:5: waves.evalute: unknown key, did you mean evaluate?"],
        id="misspelt-block",
    ),
    pytest.param(
        SINUSOID,
        "lr: 1e-3",
        "momentum: 0.9",
        ["pipelines.yaml:15:9: waves.train.outer.momentum: unknown key, expected lr, schedule or clip_norm"],
        id="key-like-no-other",
    ),
    pytest.param(
        SINUSOID,
        "seed: 1",
        "extend: waves",
        ["pipelines.yaml:3:5: waves.extend: unknown key, did you mean extends?"],
        id="misspelt-extends",
    ),
    pytest.param(
        SINUSOID,
        "seed: 1",
        "name: other",
        ["pipelines.yaml:3:5: waves.name: unknown key: the key of the block is the pipeline's name, expected no other"],
        id="name-in-block",
    ),
    pytest.param(
        SINUSOID,
        "pipelines:",
        "pipeline:",
        ["pipelines.yaml:1:1: pipeline: unknown key, did you mean pipelines?"],
        id="misspelt-top",
    ),
    pytest.param(
        SINUSOID,
        "pipelines:",
        "version: 3\npipelines:",
        ["pipelines.yaml:1:1: version: unknown key, expected pipelines"],
        id="unknown-top",
    ),
    pytest.param(
        SINUSOID,
        "pipelines:\n",
        "x:\n",
        [
            "pipelines.yaml:1:1: x: unknown key, expected pipelines",
            "pipelines.yaml:1:1: pipelines: missing, expected a mapping from names to pipelines",
        ],
        id="pipeline-at-top",
    ),
    pytest.param(
        SINUSOID,
        "name: mlp",
        "name: mpl",
        ['pipelines.yaml:9:15: waves.train.model.name: expected mlp, conv4, resnet12 or module, found "mpl", did you mean mlp?'],
        id="unknown-network",
    ),
    pytest.param(
        SINUSOID,
        "name: mlp",
        "name: 3",
        ["pipelines.yaml:9:15: waves.train.model.name: expected mlp, conv4, resnet12 or module, found 3"],
        id="network-of-no-kind",
    ),
    pytest.param(
        SINUSOID,
        "distribution: sinusoid",
        "distribution: sinusoids",
        [
            'pipelines.yaml:5:21: waves.generate.distribution: expected sinusoid, mixture or omniglot, found "sinusoids", did you mean sinusoid?'
        ],
        id="unknown-distribution",
    ),
    pytest.param(
        SINUSOID,
        "name: mlp",
        "name: [mlp]",
        ['pipelines.yaml:9:15: waves.train.model.name: expected mlp, conv4, resnet12 or module, found ["mlp"]'],
        id="list-as-tag",
    ),
    pytest.param(
        SINUSOID,
        "lr: 1e-3",
        "schedule: cosin",
        ['pipelines.yaml:15:19: waves.train.outer.schedule: expected constant or cosine, found "cosin", did you mean cosine?'],
        id="unknown-enum",
    ),
    pytest.param(
        SINUSOID,
        "seed: 1",
        "device: gpu",
        ['pipelines.yaml:3:13: waves.device: expected auto, cpu or cuda, found "gpu", did you mean cuda?'],
        id="device",
    ),
    pytest.param(
        SINUSOID,
        "seed: 1",
        "device: CUDA",
        ['pipelines.yaml:3:13: waves.device: expected auto, cpu or cuda, found "CUDA", did you mean cuda?'],
        id="case-of-value",
    ),
    pytest.param(
        SINUSOID,
        "      iterations: 100\n",
        "",
        ["pipelines.yaml:7:5: waves.train.iterations: missing, expected a whole number of at least 1"],
        id="missing-iterations",
    ),
    pytest.param(
        SINUSOID,
        "        name: mlp\n",
        "",
        ["pipelines.yaml:8:7: waves.train.model.name: missing, expected mlp, conv4, resnet12 or module"],
        id="missing-tag",
    ),
    pytest.param(
        SINUSOID,
        "      model:\n        name: mlp\n        hidden: [40, 40]\n",
        "",
        ["pipelines.yaml:7:5: waves.train.model: missing, expected a mapping with the key name (mlp, conv4, resnet12 or module)"],
        id="missing-model",
    ),
    pytest.param(
        SINUSOID,
        "    generate:\n      distribution: sinusoid\n      amplitude: [0.1, 5.0]\n",
        "",
        [
            "pipelines.yaml:2:3: waves.generate: missing, expected a mapping with the key distribution (sinusoid, mixture or omniglot)"
        ],
        id="missing-generate",
    ),
    pytest.param(
        SINUSOID,
        "lr: 1e-3",
        "lr: small",
        ['pipelines.yaml:15:13: waves.train.outer.lr: expected a number greater than 0, found "small"'],
        id="text-for-number",
    ),
    pytest.param(
        SINUSOID,
        "iterations: 100",
        'iterations: "100"',
        ['pipelines.yaml:11:19: waves.train.iterations: expected a whole number of at least 1, found "100"'],
        id="quoted-number",
    ),
    pytest.param(
        SINUSOID,
        "iterations: 100",
        "iterations: 70_000",
        ['pipelines.yaml:11:19: waves.train.iterations: expected a whole number of at least 1, found "70_000"'],
        id="thousands",
    ),
    pytest.param(
        SINUSOID,
        "iterations: 100",
        "iterations: 1e5",
        ["pipelines.yaml:11:19: waves.train.iterations: expected a whole number of at least 1, found 1e5"],
        id="float-for-int",
    ),
    pytest.param(
        SINUSOID,
        "lr: 1e-3",
        "lr: true",
        ["pipelines.yaml:15:13: waves.train.outer.lr: expected a number greater than 0, found true"],
        id="bool-for-number",
    ),
    pytest.param(
        SINUSOID,
        "seed: 1",
        "seed: yes",
        ['pipelines.yaml:3:11: waves.seed: expected a whole number from 0 to 9223372036854775807, found "yes"'],
        id="yes-for-int",
    ),
    pytest.param(
        SINUSOID,
        "register_as: waves",
        "register_as: 3",
        ["pipelines.yaml:19:20: waves.log.register_as: expected text or null, found 3"],
        id="number-for-text",
    ),
    pytest.param(
        SINUSOID,
        "register_as: waves",
        "register_as: team/waves",
        [
            "pipelines.yaml:19:20: waves.log.register_as: expected a name of letters, digits, spaces and the signs _ . - alone, "
            'found "team/waves"'
        ],
        id="model-name",
    ),
    pytest.param(
        SINUSOID,
        "register_as: waves",
        "experiment: ''",
        ['pipelines.yaml:19:19: waves.log.experiment: expected non-empty text or null, found ""'],
        id="empty-text",
    ),
    pytest.param(
        SINUSOID,
        "lr: 1e-3",
        "lr: null",
        ["pipelines.yaml:15:13: waves.train.outer.lr: expected a number greater than 0, found null"],
        id="null-for-number",
    ),
    pytest.param(
        SINUSOID,
        "    evaluate:\n      steps: 3\n",
        "    evaluate:\n",
        [
            "pipelines.yaml:16:14: waves.evaluate: expected a mapping with keys such as steps, shots, queries, inner_lr, found nothing"
        ],
        id="nothing-for-block",
    ),
    pytest.param(
        SINUSOID,
        "    evaluate:\n      steps: 3\n",
        "    evaluate: 3\n",
        ["pipelines.yaml:16:15: waves.evaluate: expected a mapping with keys such as steps, shots, queries, inner_lr, found 3"],
        id="scalar-for-block",
    ),
    pytest.param(
        SINUSOID,
        "    evaluate:\n      steps: 3\n",
        "    evaluate: [steps, 3]\n",
        [
            'pipelines.yaml:16:15: waves.evaluate: expected a mapping with keys such as steps, shots, queries, inner_lr, found ["steps", 3]'
        ],
        id="list-for-block",
    ),
    pytest.param(
        SINUSOID,
        "      model:\n        name: mlp\n        hidden: [40, 40]\n",
        "      model: mlp\n",
        [
            'pipelines.yaml:8:14: waves.train.model: expected a mapping with the key name (mlp, conv4, resnet12 or module), found "mlp"'
        ],
        id="scalar-for-model",
    ),
    pytest.param(
        SINUSOID,
        "lr: 1e-3",
        "lr: {start: 0.1, end: 1}",
        ["pipelines.yaml:15:13: waves.train.outer.lr: expected a number greater than 0, found a mapping with start, end"],
        id="mapping-for-number",
    ),
    pytest.param(
        SINUSOID,
        "iterations: 100",
        "iterations: 0",
        ["pipelines.yaml:11:19: waves.train.iterations: expected a whole number of at least 1, found 0"],
        id="zero",
    ),
    pytest.param(
        SINUSOID,
        "lr: 1e-3",
        "lr: -1",
        ["pipelines.yaml:15:13: waves.train.outer.lr: expected a number greater than 0, found -1"],
        id="negative-lr",
    ),
    pytest.param(
        SINUSOID,
        "lr: 1e-3",
        "lr: .inf",
        ["pipelines.yaml:15:13: waves.train.outer.lr: expected a finite number greater than 0, found .inf"],
        id="infinite",
    ),
    pytest.param(
        SINUSOID,
        "lr: 1e-3",
        "lr: .nan",
        ["pipelines.yaml:15:13: waves.train.outer.lr: expected a finite number greater than 0, found .nan"],
        id="nan",
    ),
    pytest.param(
        SINUSOID,
        "seed: 1",
        "seed: -1",
        ["pipelines.yaml:3:11: waves.seed: expected a whole number from 0 to 9223372036854775807, found -1"],
        id="negative-seed",
    ),
    pytest.param(
        SINUSOID,
        "seed: 1",
        "seed: 9223372036854775808",
        ["pipelines.yaml:3:11: waves.seed: expected a whole number from 0 to 9223372036854775807, found 9223372036854775808"],
        id="seed-too-large",
    ),
    pytest.param(
        SINUSOID,
        "seed: 1",
        "seed: " + "9" * 5000,
        ["pipelines.yaml:3:11: waves.seed: found a number of 5000 digits, expected a smaller one"],
        id="endless-number",
    ),
    pytest.param(
        SINUSOID,
        "[0.1, 5.0]",
        "[5.0, 0.1]",
        ["pipelines.yaml:6:18: waves.generate.amplitude: expected two numbers, the smaller one first, found [5.0, 0.1]"],
        id="range-reversed",
    ),
    pytest.param(
        SINUSOID,
        "[0.1, 5.0]",
        "[0.1]",
        ["pipelines.yaml:6:18: waves.generate.amplitude: expected a list of two numbers, found [0.1]"],
        id="range-short",
    ),
    pytest.param(
        SINUSOID,
        "[0.1, 5.0]",
        "[0.1, 1, 5]",
        ["pipelines.yaml:6:18: waves.generate.amplitude: expected a list of two numbers, found [0.1, 1, 5]"],
        id="range-long",
    ),
    pytest.param(
        SINUSOID,
        "[0.1, 5.0]",
        "5",
        ["pipelines.yaml:6:18: waves.generate.amplitude: expected a list of two numbers, found 5"],
        id="range-scalar",
    ),
    pytest.param(
        SINUSOID,
        "[0.1, 5.0]",
        "[0.1, five]",
        ['pipelines.yaml:6:24: waves.generate.amplitude[1]: expected a number, found "five"'],
        id="range-of-text",
    ),
    pytest.param(
        SINUSOID,
        "[40, 40]",
        "[]",
        ["pipelines.yaml:10:17: waves.train.model.hidden: expected a list of one or more whole numbers of at least 1, found []"],
        id="hidden-empty",
    ),
    pytest.param(
        SINUSOID,
        "[40, 40]",
        "40",
        ["pipelines.yaml:10:17: waves.train.model.hidden: expected a list of one or more whole numbers of at least 1, found 40"],
        id="hidden-scalar",
    ),
    pytest.param(
        SINUSOID,
        "[40, 40]",
        "[40, 0, 1.5]",
        [
            "pipelines.yaml:10:22: waves.train.model.hidden[1]: expected a whole number of at least 1, found 0",
            "pipelines.yaml:10:25: waves.train.model.hidden[2]: expected a whole number of at least 1, found 1.5",
        ],
        id="hidden-item",
    ),
    pytest.param(
        SINUSOID,
        "hidden: [40, 40]",
        "filters: 64",
        ["pipelines.yaml:10:9: waves.train.model.filters: unknown key, expected name or hidden"],
        id="key-of-other-network",
    ),
    pytest.param(
        OMNIGLOT,
        "distribution: omniglot",
        "distribution: omniglot\n      rotations: 3",
        ["pipelines.yaml:5:18: letters.generate.rotations: expected 1, 2 or 4, found 3"],
        id="rotations",
    ),
    pytest.param(
        OMNIGLOT,
        "distribution: omniglot",
        "distribution: omniglot\n      rotations: 4.0",
        ["pipelines.yaml:5:18: letters.generate.rotations: expected 1, 2 or 4, found 4.0"],
        id="rotations-float",
    ),
    pytest.param(
        OMNIGLOT,
        "ways: 5",
        "ways: 1",
        ["pipelines.yaml:9:13: letters.train.ways: expected a whole number of at least 2 or null, found 1"],
        id="one-way",
    ),
    pytest.param(
        SINUSOID,
        "      shots: 5\n",
        "      shots: 5\n      shots: 6\n",
        ["pipelines.yaml:13:7: waves.train.shots: duplicate key, expected it once: it is already set in line 12"],
        id="duplicate-key",
    ),
    pytest.param(
        SINUSOID,
        "      register_as: waves\n",
        "      register_as: waves\n  waves: {}\n",
        ["pipelines.yaml:20:3: waves: duplicate key, expected it once: it is already set in line 2"],
        id="duplicate-pipeline",
    ),
    pytest.param(SINUSOID, "    seed: 1", "\tseed: 1", ["pipelines.yaml:3:1: a tab, expected spaces"], id="tab"),
    pytest.param(SINUSOID, "seed: 1", "seed:\t1", ["pipelines.yaml:3:10: a tab, expected spaces"], id="tab-after-colon"),
    pytest.param(
        SINUSOID,
        "seed: 1",
        "<<: {seed: 1}",
        ["pipelines.yaml:3:5: waves.<<: merge keys are not read, expected `extends: PIPELINE` in the pipeline's block"],
        id="merge-key",
    ),
    pytest.param(
        SINUSOID,
        "seed: 1",
        "seed: &one 1\n    description: *one",
        ["pipelines.yaml:4:18: waves.description: *one is an alias, expected the value itself (`extends` shares settings)"],
        id="alias",
    ),
    pytest.param(
        SINUSOID,
        "    seed: 1\n    generate:",
        "    seed: 1\n    generate: &g\n      held_out: *g",
        ["pipelines.yaml:5:17: waves.generate.held_out: *g is an alias, expected the value itself (`extends` shares settings)"],
        id="recursive-alias",
    ),
    pytest.param(
        SINUSOID,
        "seed: 1",
        "seed: !!python/object:os.system 1",
        ["pipelines.yaml:3:11: waves.seed: tag !!python/object:os.system, expected a plain value without a tag"],
        id="tag",
    ),
    pytest.param(
        SINUSOID,
        "    evaluate:",
        "    evaluate: !custom",
        ["pipelines.yaml:16:15: waves.evaluate: tag !custom, expected a plain value without a tag"],
        id="tag2",
    ),
    pytest.param(
        SINUSOID,
        "seed: 1",
        "[seed]: 1",
        ["pipelines.yaml:3:5: waves: a key that is not plain text, expected a name"],
        id="list-key",
    ),
    pytest.param(
        SINUSOID,
        "seed: 1",
        "description: one: two",
        [
            "pipelines.yaml:3:21: a `:` that does not fit, expected one `key: value` a line, in line with its block (text with `: ` between quotes)"
        ],
        id="second-colon",
    ),
    pytest.param(
        SINUSOID,
        "      shots: 5",
        "       shots: 5",
        [
            "pipelines.yaml:12:13: a `:` that does not fit, expected one `key: value` a line, in line with its block (text with `: ` between quotes)"
        ],
        id="indentation",
    ),
    pytest.param(
        SINUSOID,
        "        lr: 1e-3\n",
        "       lr: 1e-3\n     x: 1\n",
        ["pipelines.yaml:16:6: this does not line up with the lines above, expected the keys of a block in one column"],
        id="outdent",
    ),
    pytest.param(
        SINUSOID,
        "seed: 1",
        "seed 1",
        [
            "pipelines.yaml:4:13: a `:` that does not fit, expected one `key: value` a line, in line with its block (text with `: ` between quotes)"
        ],
        id="no-colon",
    ),
    pytest.param(
        SINUSOID, "[40, 40]", "[40, 40", ["pipelines.yaml:10:17: the list is not closed, expected , or ]"], id="unclosed-list"
    ),
    pytest.param(
        SINUSOID, "[40, 40]", "{a: 40", ["pipelines.yaml:10:17: the mapping is not closed, expected , or }"], id="unclosed-mapping"
    ),
    pytest.param(
        SINUSOID,
        "register_as: waves",
        "register_as: 'waves",
        ["pipelines.yaml:19:20: the text is not closed, expected a quote at its end"],
        id="unclosed-quote",
    ),
    pytest.param(
        SINUSOID,
        "seed: 1",
        "schedule: {cron: */5 * * * *}",
        ["pipelines.yaml:3:23: a value cannot begin with * or &, expected it between quotes"],
        id="cron-unquoted",
    ),
    pytest.param(
        SINUSOID,
        "seed: 1",
        "description: %x",
        ["pipelines.yaml:3:18: a value cannot begin with %, expected it between quotes"],
        id="percent",
    ),
    pytest.param(
        SINUSOID,
        "hidden: [40, 40]",
        "hidden: - 40",
        ["pipelines.yaml:10:17: a list begins in the line of its key, expected it in the next line, or as [a, b]"],
        id="inline-list",
    ),
    pytest.param(
        SINUSOID,
        "seed: 1",
        "description: \x07",
        ["pipelines.yaml:3:18: character U+0007 cannot stand in YAML, expected printable text"],
        id="control",
    ),
    pytest.param(
        SINUSOID,
        "      register_as: waves\n",
        "      register_as: waves\n---\nmore: 1\n",
        ["pipelines.yaml:20:1: a second document begins here, expected one"],
        id="two-documents",
    ),
    pytest.param(
        SINUSOID,
        "[40, 40]",
        "[" * 50 + "]" * 50,
        ["pipelines.yaml:10:45: more than 32 levels of nesting, expected a few"],
        id="nesting",
    ),
    pytest.param(
        SINUSOID,
        SINUSOID,
        "- waves\n",
        ['pipelines.yaml:1:1: expected a mapping with the key pipelines, found ["waves"]'],
        id="top-list",
    ),
    pytest.param(
        SINUSOID,
        SINUSOID,
        "waves\n",
        ['pipelines.yaml:1:1: expected a mapping with the key pipelines, found "waves"'],
        id="top-text",
    ),
    pytest.param(
        SINUSOID, SINUSOID, "", ["pipelines.yaml:1:1: the file is empty, expected a mapping with the key pipelines"], id="empty"
    ),
    pytest.param(
        SINUSOID,
        SINUSOID,
        "# nothing yet\n",
        ["pipelines.yaml:1:1: the file is empty, expected a mapping with the key pipelines"],
        id="comments",
    ),
    pytest.param(
        SINUSOID,
        SINUSOID,
        "pipelines:\n",
        ["pipelines.yaml:1:11: pipelines: expected a mapping from names to pipelines, found nothing"],
        id="no-pipelines",
    ),
    pytest.param(
        SINUSOID,
        SINUSOID,
        "pipelines: {}\n",
        ["pipelines.yaml:1:12: pipelines: expected a mapping from names to pipelines, found an empty mapping"],
        id="no-pipelines2",
    ),
    pytest.param(
        SINUSOID,
        SINUSOID,
        "{}\n",
        ["pipelines.yaml:1:1: pipelines: missing, expected a mapping from names to pipelines"],
        id="no-pipelines3",
    ),
    pytest.param(
        SINUSOID,
        SINUSOID,
        "pipelines:\n  - name: waves\n",
        ["pipelines.yaml:2:3: pipelines: expected a mapping from names to pipelines, found a list of mappings"],
        id="pipelines-list",
    ),
    pytest.param(
        SINUSOID,
        "pipelines:\n",
        "pipelines:\n  empty:\n",
        ["pipelines.yaml:2:9: empty: expected a mapping with keys such as extends, generate, train, found nothing"],
        id="pipeline-null",
    ),
    pytest.param(
        SINUSOID,
        "  waves:\n",
        "  My Waves:\n",
        [
            'pipelines.yaml:2:3: My Waves: expected a name of lower-case letters, digits, . _ and -, a letter or digit first, found "My Waves"'
        ],
        id="pipeline-name",
    ),
    pytest.param(
        SINUSOID,
        "seed: 1",
        "schedule: {cron: 61 * * * *}",
        [
            'pipelines.yaml:3:22: waves.schedule.cron: expected a cron expression of five fields, as in 0 3 * * * (bad minute), found "61 * * * *"'
        ],
        id="bad-cron",
    ),
    pytest.param(
        SINUSOID,
        "seed: 1",
        "schedule: {cron: '@daily'}",
        [
            'pipelines.yaml:3:22: waves.schedule.cron: expected a cron expression of five fields, as in 0 3 * * * (wrong number of fields), found "@daily"'
        ],
        id="cron-fields",
    ),
    pytest.param(
        SINUSOID,
        "seed: 1",
        "schedule: {cron: 0 3 * * *, timezone: Europe/Berln}",
        [
            'pipelines.yaml:3:43: waves.schedule.timezone: expected an IANA time zone, as in Europe/Berlin, found "Europe/Berln", did you mean Europe/Berlin?'
        ],
        id="bad-zone",
    ),
    pytest.param(
        SINUSOID,
        "seed: 1",
        "schedule: {every: 6 hours}",
        ['pipelines.yaml:3:23: waves.schedule.every: expected a whole number and s, m, h or d, as in 6h, found "6 hours"'],
        id="bad-interval",
    ),
    pytest.param(
        SINUSOID,
        "seed: 1",
        "schedule: {every: 6h, cron: 0 3 * * *}",
        ["pipelines.yaml:3:15: waves.schedule: expected a mapping with either cron or every, found a mapping with every, cron"],
        id="both",
    ),
    pytest.param(
        SINUSOID,
        "seed: 1",
        "schedule: {timezone: UTC}",
        ["pipelines.yaml:3:15: waves.schedule: expected a mapping with either cron or every, found a mapping with timezone"],
        id="neither",
    ),
    pytest.param(
        SINUSOID,
        "seed: 1",
        "schedule: 0 3 * * *",
        ['pipelines.yaml:3:15: waves.schedule: expected a mapping with either cron or every, found "0 3 * * *"'],
        id="schedule-text",
    ),
    pytest.param(
        SINUSOID,
        "seed: 1",
        "schedule: {cron: 0 3 * * *, time_zone: UTC}",
        ["pipelines.yaml:3:33: waves.schedule.time_zone: unknown key, did you mean timezone?"],
        id="schedule-key",
    ),
    pytest.param(
        SINUSOID,
        "seed: 1",
        "extends: weaves",
        ['pipelines.yaml:3:14: waves.extends: expected the name of a pipeline, found "weaves"'],
        id="unknown-extends",
    ),
    pytest.param(
        SINUSOID,
        "seed: 1",
        "extends: waves",
        ["pipelines.yaml:3:14: waves.extends: a circle (waves extends waves), expected a pipeline that does not extend this one"],
        id="extends-self",
    ),
    pytest.param(
        SINUSOID,
        "seed: 1",
        "extends: 3",
        ["pipelines.yaml:3:14: waves.extends: expected the name of a pipeline, found 3"],
        id="extends-number",
    ),
    pytest.param(
        SINUSOID,
        "shots: 5",
        "shots: 5\n      ways: 5",
        ["pipelines.yaml:13:7: waves.train.ways: 5 ways, but sinusoids are regression tasks and have no classes: remove it"],
        id="ways-for-sinusoid",
    ),
    pytest.param(
        SINUSOID,
        "steps: 3",
        "steps: 3\n      shifted: {loud: {amplitud: [5, 10]}}",
        ["pipelines.yaml:18:24: waves.evaluate.shifted.loud.amplitud: unknown key, did you mean amplitude?"],
        id="shift-misspelt",
    ),
    pytest.param(
        SINUSOID,
        "steps: 3",
        "steps: 3\n      shifted: {loud: {amplitude: [10, 5]}}",
        ["pipelines.yaml:18:35: waves.evaluate.shifted.loud.amplitude: expected two numbers, the smaller one first, found [10, 5]"],
        id="shift-range-backwards",
    ),
    pytest.param(
        SINUSOID,
        "steps: 3",
        "steps: 3\n      shifted: {loud: {}}",
        ["pipelines.yaml:18:17: waves.evaluate.shifted.loud: nothing is shifted, expected a key such as x"],
        id="shift-of-nothing",
    ),
    pytest.param(
        SINUSOID,
        "steps: 3",
        "steps: 3\n      shifted: {Loud: {noise: 1}}",
        [
            "pipelines.yaml:18:16: waves.evaluate.shifted: expected names of lower-case letters, digits, _ and -, a letter or digit first, other than in-distribution, found a mapping with Loud"
        ],
        id="shift-name",
    ),
    pytest.param(
        SINUSOID,
        "steps: 3",
        "steps: 3\n      shifted: {lines: {slope: [0, 1]}}",
        [
            "pipelines.yaml:18:25: waves.evaluate.shifted.lines.slope: sinusoid tasks have no such setting, expected one of amplitude, distribution, noise, phase, queries, shots, x"
        ],
        id="shift-of-another-kind",
    ),
    pytest.param(
        SINUSOID,
        "steps: 3",
        "steps: 3\n      shifted: {many: {shots: 30}}",
        [
            "pipelines.yaml:18:24: waves.evaluate.shifted.many.shots: 30 shots, but held-out tasks store 20 support points: expected at most that many, or a larger generate.support_points"
        ],
        id="shift-shots",
    ),
    pytest.param(
        SINUSOID,
        "steps: 3",
        "steps: 3\n      shifted: {none: {distribution: mixture, families: {line: 0}}}",
        [
            "pipelines.yaml:18:57: waves.evaluate.shifted.none.families: expected a number greater than 0 for line, quadratic or sinusoid, found a mapping with line"
        ],
        id="shift-to-no-family",
    ),
    pytest.param(
        SINUSOID,
        "steps: 3",
        "steps: 3\n      shifted: 3",
        ["pipelines.yaml:18:16: waves.evaluate.shifted: expected a mapping from names to mappings or null, found 3"],
        id="shifts-of-no-kind",
    ),
    pytest.param(
        OMNIGLOT,
        "queries: 1",
        "queries: 1\n    evaluate:\n      shifted: {wide: {ways: 30}}",
        [
            "pipelines.yaml:13:24: letters.evaluate.shifted.wide.ways: 30 ways, but held-out tasks store 20 classes: expected at most that many, or a larger generate.held_out_ways"
        ],
        id="shift-ways",
    ),
    pytest.param(
        OMNIGLOT,
        "queries: 1",
        "queries: 1\n    evaluate:\n      shifted: {full: {shots: 20}}",
        [
            "pipelines.yaml:13:17: letters.evaluate.shifted.full: 20 shots and 1 queries, but a character has 20 drawings: expected at most that many together"
        ],
        id="shift-drawings",
    ),
    pytest.param(
        OMNIGLOT,
        "queries: 1",
        "queries: 1\n    evaluate:\n      shifted: {new: {alphabets: new}}",
        [
            "pipelines.yaml:13:23: letters.evaluate.shifted.new.alphabets: none are kept apart: expected generate.characters.new_alphabets to say how many characters"
        ],
        id="shift-without-alphabets",
    ),
    pytest.param(
        OMNIGLOT,
        "distribution: omniglot",
        "distribution: omniglot\n      split_by: alphabet\n      characters: {train: 900, new_alphabets: 200}",
        [
            "pipelines.yaml:6:32: letters.generate.characters.new_alphabets: 200 characters, but split_by is alphabet, so that the test tasks are of new alphabets already: expected 0"
        ],
        id="new-alphabets-twice",
    ),
    pytest.param(
        SINUSOID,
        "shots: 5",
        "shots: 5\n      reduction: sum_over_ways",
        ["pipelines.yaml:13:7: waves.train.reduction: sum_over_ways needs classes, and sinusoids have none: expected mean"],
        id="sum-for-sinusoid",
    ),
    pytest.param(
        SINUSOID,
        "shots: 5",
        "shots: 5\n      baselines: [protonet]",
        ["pipelines.yaml:13:7: waves.train.baselines: protonet needs classes, and sinusoids have none: remove it"],
        id="protonet-for-sinusoid",
    ),
    pytest.param(
        SINUSOID.replace("steps: 3", "steps: 3\n      adaptation: safe"),
        "shots: 5",
        "shots: 5\n      inner: {rule: adam}",
        [
            "pipelines.yaml:19:7: waves.evaluate.adaptation: safe is gradient descent on the whole support set, but train.inner.rule is "
            "adam: expected plain"
        ],
        id="safe-adam",
    ),
    pytest.param(
        OMNIGLOT + "    evaluate: {adaptation: safe}\n",
        "name: conv4",
        "name: conv4\n        normalization: per_step",
        [
            "pipelines.yaml:13:16: letters.evaluate.adaptation: safe is gradient descent on the whole support set, but "
            "train.model.normalization is per_step, which belongs to the steps as they were learned: expected plain"
        ],
        id="safe-per-step",
    ),
    pytest.param(
        OMNIGLOT,
        "name: conv4",
        "name: conv4\n        normalization: per_step\n      algorithm: reptile",
        [
            "pipelines.yaml:8:9: letters.train.model.normalization: the meta-gradient `reptile` says nothing about what belongs to a "
            "single step: expected another than per_step"
        ],
        id="reptile-per-step",
    ),
    pytest.param(
        SINUSOID,
        "shots: 5",
        "shots: 5\n      baselines: [pretraned]",
        [
            'pipelines.yaml:13:19: waves.train.baselines[0]: expected pretrained or protonet, found "pretraned", did you mean pretrained?'
        ],
        id="misspelt-baseline",
    ),
    pytest.param(
        SINUSOID,
        "name: mlp\n        hidden: [40, 40]",
        "name: conv4",
        ["pipelines.yaml:9:9: waves.train.model.name: conv4 takes pictures, and sinusoids have none: expected mlp or module"],
        id="conv-for-sinusoid",
    ),
    pytest.param(
        SINUSOID,
        "name: mlp\n        hidden: [40, 40]",
        "name: module\n        path: nets.Net",
        [
            'pipelines.yaml:10:15: waves.train.model.path: expected module:Class, as in mypackage.nets:Net, found "nets.Net"',
        ],
        id="import-path-without-class",
    ),
    pytest.param(
        OMNIGLOT,
        "name: conv4",
        "name: conv4\n        normalization: group\n        groups: 7",
        ["pipelines.yaml:9:9: letters.train.model.groups: 7 groups of 64 filters: expected a divisor"],
        id="groups-that-do-not-divide",
    ),
    pytest.param(
        OMNIGLOT,
        "name: conv4",
        "name: conv4\n        batch_norm: inductive",
        [
            "pipelines.yaml:8:9: letters.train.model.batch_norm: unknown key, expected name, normalization, groups, filters or pooling"
        ],
        id="batch-norm-of-another-kind",
    ),
    pytest.param(
        SINUSOID,
        "steps: 3",
        "shots: 21",
        [
            "pipelines.yaml:17:7: waves.evaluate.shots: 21 shots, but held-out tasks store 20 support points: expected at most that many, or a larger generate.support_points"
        ],
        id="shots-beyond",
    ),
    pytest.param(
        SINUSOID,
        "shots: 5",
        "shots: 21",
        [
            "pipelines.yaml:12:7: waves.train.shots: 21 shots, but held-out tasks store 20 support points: expected at most that many, or a larger generate.support_points"
        ],
        id="train-shots-beyond",
    ),
    pytest.param(
        OMNIGLOT,
        "distribution: omniglot",
        "distribution: omniglot\n      characters: {train: 1200}",
        [
            "pipelines.yaml:5:7: letters.generate.characters: 1723 characters in all, but Omniglot has 1623: expected at most that many"
        ],
        id="characters",
    ),
    pytest.param(
        OMNIGLOT,
        "      ways: 5\n",
        "",
        [
            "pipelines.yaml:5:5: letters.train.ways: missing, and Omniglot tasks are classification: expected the number of classes of a task"
        ],
        id="no-ways",
    ),
    pytest.param(
        OMNIGLOT,
        "ways: 5",
        "ways: 21",
        [
            "pipelines.yaml:9:7: letters.train.ways: 21 ways, but held-out tasks store 20 classes: expected at most that many, or a larger generate.held_out_ways"
        ],
        id="ways-beyond-stored",
    ),
    pytest.param(
        OMNIGLOT,
        "distribution: omniglot",
        "distribution: omniglot\n      characters: {test: 4}",
        [
            "pipelines.yaml:3:5: letters.generate.held_out_ways: 20 ways, but the test split has 16 classes: expected at most that many"
        ],
        id="ways-beyond-classes",
    ),
    pytest.param(
        OMNIGLOT,
        "queries: 1",
        "queries: 20",
        [
            "pipelines.yaml:5:5: letters.train: 1 shots and 20 queries, but a character has 20 drawings: expected at most that many together"
        ],
        id="drawings",
    ),
    pytest.param(
        OMNIGLOT,
        "queries: 1",
        "queries: 1\n    evaluate: {queries: 20}",
        [
            "pipelines.yaml:12:5: letters.evaluate: 1 shots and 20 queries, but a character has 20 drawings: expected at most that many together"
        ],
        id="drawings-eval",
    ),
    pytest.param(
        SINUSOID,
        "      queries: 10\n",
        "      queries: 10\n      algorithm: reptile\n      inner: {learned_lr: scalar}\n",
        [
            "pipelines.yaml:15:15: waves.train.inner.learned_lr: the meta-gradient `reptile` says nothing about step sizes: expected none"
        ],
        id="reptile-step-sizes",
    ),
    pytest.param(
        OMNIGLOT,
        "name: conv4",
        "name: [conv4]\n      algorithm: maml++",
        ['pipelines.yaml:7:15: letters.train.model.name: expected mlp, conv4, resnet12 or module, found ["conv4"]'],
        id="model-list",
    ),
    pytest.param(
        OMNIGLOT,
        "name: conv4",
        "name: conv4\n        normalization: per_step\n      algorithm: fomaml\n      inner: {steps: 2}",
        [
            "pipelines.yaml:8:9: letters.train.model.normalization: by a first-order meta-gradient of the last step's loss, no other "
            "step's scale and shift are learned: expected outer_loss: multi_step, or another than per_step"
        ],
        id="fomaml-per-step",
    ),
    pytest.param(
        SINUSOID,
        "      queries: 10\n",
        "      queries: 10\n      algorithm: reptile\n      inner: {adapts: head}\n",
        [
            "pipelines.yaml:15:15: waves.train.inner.adapts: the meta-gradient `reptile` learns nothing but what adapts: expected all"
        ],
        id="reptile-head",
    ),
    pytest.param(
        SINUSOID,
        "      queries: 10\n",
        "      queries: 10\n      algorithm: imaml\n      inner: {minibatch: 2}\n",
        [
            "pipelines.yaml:15:15: waves.train.inner.minibatch: the implicit meta-gradient is of one inner loss, the whole support "
            "set's: remove it"
        ],
        id="imaml-minibatch",
    ),
    pytest.param(
        SINUSOID,
        "      queries: 10\n",
        "      queries: 10\n      algorithm: imaml\n      outer_loss: multi_step\n",
        [
            "pipelines.yaml:15:7: waves.train.outer_loss: the meta-gradient `implicit` knows the end of the inner loop alone: expected last_step"
        ],
        id="implicit-multi-step",
    ),
    pytest.param(
        SINUSOID,
        "      queries: 10\n",
        "      queries: 10\n      algorithm: fomaml\n      first_order_share: 0.5\n",
        [
            "pipelines.yaml:15:7: waves.train.first_order_share: the meta-gradient is `first_order` from the first iteration on: expected 0"
        ],
        id="first-order-share",
    ),
    pytest.param(
        SINUSOID,
        "      queries: 10\n",
        "      queries: 10\n      meta_gradient: reptile\n      backward: unrolled\n",
        [
            "pipelines.yaml:15:7: waves.train.backward: the meta-gradient `reptile` does not go back through the inner loop: expected auto"
        ],
        id="backward-of-reptile",
    ),
    pytest.param(
        SINUSOID,
        "      queries: 10\n",
        "      queries: 10\n      implicit: {proximal: 1.0}\n",
        ["pipelines.yaml:14:7: waves.train.implicit: the meta-gradient is `exact`: remove it, or expected meta_gradient: implicit"],
        id="implicit-unused",
    ),
    pytest.param(
        SINUSOID,
        "      queries: 10\n",
        "      queries: 10\n      inner: {lr_bounds: [0.001, 0.1]}\n",
        ["pipelines.yaml:14:15: waves.train.inner.lr_bounds: no step size is learned: remove it, or choose a learned_lr"],
        id="bounds-unused",
    ),
    pytest.param(
        SINUSOID,
        "      queries: 10\n",
        "      queries: 10\n      algorithm: meta-sgd\n      inner: {lr: 0.5, lr_bounds: [0.001, 0.1]}\n",
        ["pipelines.yaml:15:15: waves.train.inner.lr: 0.5, where step sizes begin, is out of lr_bounds: expected 0.001 to 0.1"],
        id="lr-out-of-bounds",
    ),
    pytest.param(
        SINUSOID,
        "      queries: 10\n",
        "      queries: 10\n      inner: {minibatch: 6}\n",
        ["pipelines.yaml:14:15: waves.train.inner.minibatch: 6 of 5 support examples: expected at most all of them"],
        id="minibatch",
    ),
]


@pytest.mark.parametrize("text", [SINUSOID, OMNIGLOT])
def test_files_that_the_mistakes_are_made_in_are_right(text: str, tmp_path: Path) -> None:
    path = tmp_path / "pipelines.yaml"
    path.write_text(text)
    assert len(load(path)) == 1


@pytest.mark.parametrize(("text", "right", "wrong", "lines"), MISTAKES)
def test_mistake_is_named_at_its_place(
    text: str, right: str, wrong: str, lines: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert right in text
    Path("pipelines.yaml").write_text(text.replace(right, wrong, 1))
    with pytest.raises(SpecError) as error:
        load(Path("pipelines.yaml"))
    assert str(error.value).split("\n") == lines
    assert isinstance(error.value, UserError)


def test_file_is_shown_as_the_user_named_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("conf").mkdir()
    Path("conf/mine.yaml").write_text("pipelines: 3\n")
    with pytest.raises(SpecError, match=r"^conf/mine\.yaml:1:12: pipelines: expected a mapping from names to pipelines, found 3$"):
        load(Path("conf/mine.yaml"))


def test_missing_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError) as error:
        load(Path("pipelines.yaml"))
    assert str(error.value) == "pipelines.yaml: no such file, expected a pipelines file (-f FILE names another one)"


def test_folder_instead_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("conf").mkdir()
    with pytest.raises(SpecError) as error:
        load(Path("conf"))
    assert str(error.value) == "conf: a directory, expected a file, such as conf/pipelines.yaml"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pipelines.yaml").write_text(SINUSOID)
    Path("pipelines.yaml").chmod(0)
    with pytest.raises(SpecError) as error:
        load(Path("pipelines.yaml"))
    assert str(error.value) == "pipelines.yaml: cannot be read (Permission denied), expected a pipelines file"


def test_bytes_that_are_no_utf8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pipelines.yaml").write_bytes("pipelines:\n  wäves: {}\n".encode("latin-1"))
    with pytest.raises(SpecError) as error:
        load(Path("pipelines.yaml"))
    assert str(error.value) == "pipelines.yaml:2:4: byte 0xE4 is not UTF-8, expected text in UTF-8"


def test_every_tab_that_indents_a_line_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pipelines.yaml").write_text("pipelines:\n\twaves:\n\t\tseed: 1\n  \tmore: 2\n")
    with pytest.raises(SpecError) as error:
        load(Path("pipelines.yaml"))
    assert str(error.value).split("\n") == [
        "pipelines.yaml:2:1: a tab, expected spaces",
        "pipelines.yaml:3:1: a tab, expected spaces",
        "pipelines.yaml:4:3: a tab, expected spaces",
    ]


def test_all_mistakes_are_named_at_once_in_the_order_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pipelines.yaml").write_text("""\
version: 1
pipelines:
  waves:
    seed: -1
    seed: 2
    generate:
      distribution: sinusoid
      phase: [3, 1]
    train:
      model:
        name: mlp
        hiden: [40]
      iterations: many
      shots: 5
    schedule:
      cron: 99 * * * *
  letters:
    device: gpu
    generate:
      distribution: omniglot
      characters: {train: 1500}
    train:
      model: {name: conv4}
      iterations: 10
      ways: 30
      shots: 15
      queries: 15
    log:
      experiment: 5
""")
    with pytest.raises(SpecError) as error:
        load(Path("pipelines.yaml"))
    assert str(error.value).split("\n") == [
        "pipelines.yaml:1:1: version: unknown key, expected pipelines",
        "pipelines.yaml:4:11: waves.seed: expected a whole number from 0 to 9223372036854775807, found -1",
        "pipelines.yaml:5:5: waves.seed: duplicate key, expected it once: it is already set in line 4",
        "pipelines.yaml:8:14: waves.generate.phase: expected two numbers, the smaller one first, found [3, 1]",
        "pipelines.yaml:9:5: waves.train.queries: missing, expected a whole number of at least 1",
        "pipelines.yaml:12:9: waves.train.model.hiden: unknown key, did you mean hidden?",
        'pipelines.yaml:13:19: waves.train.iterations: expected a whole number of at least 1, found "many"',
        'pipelines.yaml:16:13: waves.schedule.cron: expected a cron expression of five fields, as in 0 3 * * * (bad minute), found "99 * * * *"',
        'pipelines.yaml:18:13: letters.device: expected auto, cpu or cuda, found "gpu", did you mean cuda?',
        "pipelines.yaml:21:7: letters.generate.characters: 2023 characters in all, but Omniglot has 1623: expected at most that many",
        "pipelines.yaml:22:5: letters.train: 15 shots and 15 queries, but a character has 20 drawings: expected at most that many together",
        "pipelines.yaml:25:7: letters.train.ways: 30 ways, but held-out tasks store 20 classes: expected at most that many, or a larger generate.held_out_ways",
        "pipelines.yaml:29:19: letters.log.experiment: expected non-empty text or null, found 5",
    ]
    assert [problem.place.line for problem in error.value.problems] == [1, 4, 5, 8, 9, 12, 13, 16, 18, 21, 22, 25, 29]
    assert error.value.problems[5].path == "waves.train.model.hiden"
