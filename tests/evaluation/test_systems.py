"""The registry covers the paper's tables, and claims nothing about what it does not know."""

import pytest

from medv_lab.evaluation.systems import FACTS, SYSTEMS, UNKNOWN, find_system
from medv_lab.paper.published import load_table


@pytest.mark.parametrize("number", [1, 2])
def test_every_row_of_the_tables_is_registered_and_nothing_else(number):
    listed = [system.name for system in SYSTEMS if number in system.tables]
    assert sorted(listed) == sorted(load_table(number).model)
    assert len({system.name for system in SYSTEMS}) == len(SYSTEMS)


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)
def test_what_is_said_fits_together(system):
    assert system.prompt in ("chat", UNKNOWN) or "{question}" in system.prompt
    assert system.responder in ("diffusion", "image-text", "text", "none")
    assert system.memory == (UNKNOWN if system.parameters is None else 2 * system.parameters)
    assert set(system.checked) | set(system.unchecked) == {
        name for name in FACTS if getattr(system, name) not in (UNKNOWN, None)
    }
    assert not set(system.checked) & set(system.unchecked)
    if not system.is_public:
        assert (system.model_id, system.licence, system.memory) == (UNKNOWN, UNKNOWN, UNKNOWN)
        assert "not known" in system.note or "no public weights" in system.note


def test_systems_are_found_by_their_names():
    assert find_system("MedVLM-R1").model_id == "JZPeterPan/MedVLM-R1"
    with pytest.raises(ValueError, match="LLaDA-MedV"):
        find_system("GPT-9")
