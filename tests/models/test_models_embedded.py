"""Networks that learn a vector for each category of a table, and those that do not know what codes are.

Shapes: B rows, D columns.
"""

import pytest
import torch
from torch import nn

from distail.errors import ModelError
from distail.models import FeatureTap, create_model

CARDINALITIES = (0, 4, 0, 70)
ROWS_BD = torch.tensor([[0.5, 1.0, -2.0, 69.0], [1.5, 3.0, 0.0, 0.0]])


def network(**options):
    return create_model("mlp", num_classes=3, example=ROWS_BD, cardinalities=CARDINALITIES, hidden=8, **options).eval()


def test_mlp_looks_codes_up_beside_the_numbers():
    mlp = network(depth=1)
    small, large = (table.weight for table in mlp.body[0].tables)
    assert small.shape == (4, round(1.6 * 4**0.56))
    assert large.shape == (70, round(1.6 * 70**0.56))
    rows = [torch.cat([row[[0, 2]], small[int(row[1])], large[int(row[3])]]) for row in ROWS_BD]
    hidden = mlp.body[1]
    expected = torch.relu(torch.stack(rows) @ hidden.weight.T + hidden.bias)
    torch.testing.assert_close(FeatureTap(mlp, 3)(ROWS_BD).features, expected)


def test_code_0_says_nothing_and_stays_so_and_what_is_no_code_counts_as_0():
    mlp = network(depth=1)
    first = mlp.body[0]
    optimizer = torch.optim.SGD(mlp.parameters(), lr=0.5, weight_decay=0.1, momentum=0.9)
    before = first.tables[0].weight.clone()
    for _ in range(3):
        optimizer.zero_grad()
        mlp(ROWS_BD[:, [0, 1, 2, 3]]).square().sum().backward()
        optimizer.step()
    assert not first.tables[1].weight[0].any()
    assert not torch.equal(first.tables[0].weight[1], before[1])
    unknown = ROWS_BD.clone()
    unknown[:, 1], unknown[:, 3] = 0, 0
    for odd in (4.0, -1.0, 1e6):
        rows = unknown.clone()
        rows[:, 1] = odd
        torch.testing.assert_close(mlp(rows), mlp(unknown))


def test_a_table_of_categories_alone():
    mlp = create_model("mlp", num_classes=2, example=torch.zeros(2, 2), cardinalities=(3, 5), depth=0)
    assert mlp(torch.ones(2, 2)).shape == (2, 2)


@pytest.mark.parametrize("shape", [(2, 3), (2, 4, 4)])
def test_cardinalities_are_of_the_columns(shape):
    with pytest.raises(ModelError, match="cardinalities"):
        create_model("mlp", num_classes=3, example=torch.zeros(shape), cardinalities=CARDINALITIES)


class Own(nn.Module):
    def __init__(self, num_classes, cardinalities=None):
        super().__init__()
        self.cardinalities = cardinalities
        self.score = nn.Linear(4, num_classes)

    def forward(self, rows):
        return self.score(rows)


def blind(num_classes, input_shape):
    return nn.Linear(*input_shape, num_classes)


def swallowing(num_classes, **others):
    return nn.Linear(4, num_classes)


def test_networks_of_ones_own_get_them_by_name_or_are_refused():
    own = create_model(f"{__name__}:Own", num_classes=3, example=ROWS_BD, cardinalities=CARDINALITIES)
    assert own.cardinalities == CARDINALITIES
    assert create_model(f"{__name__}:Own", num_classes=3, example=ROWS_BD).cardinalities is None
    for name in ("blind", "swallowing"):
        with pytest.raises(ModelError) as told:
            create_model(f"{__name__}:{name}", num_classes=3, example=ROWS_BD, cardinalities=CARDINALITIES)
        assert all(word in str(told.value) for word in ("cardinalities", "data.categories", "one_hot"))
    with pytest.raises(ModelError, match="cardinalities"):
        create_model("resnet8", num_classes=3, cardinalities=CARDINALITIES)
