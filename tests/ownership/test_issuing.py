"""Key images that name nobody: whether a payload died in them is said only of what was a key image of the key."""

import pytest
import torch

from modelward.core.rng import generator
from modelward.imaging.codecs import roundtrip
from modelward.marking.decoys import family, noise
from modelward.marking.payload import Payload
from modelward.ownership.issuing import issue_images, read_image

SHAPE = (1, 28, 28)
USERS = ["ann", "bob"]


def reader(kind, codec):
    carrier = Payload(b"7" * 32, SHAPE, kind, codec)
    keys = carrier.write(family("procedural", 8, SHAPE, rng=generator(0)), ["owner"] * 8, range(8))
    return carrier, keys, lambda image, users=USERS: read_image(carrier, keys, image, users, None, "additional-class")


@pytest.mark.parametrize("kind", ["bits", "image"])
@pytest.mark.parametrize("codec", ["lsb", "lsb-ecc"])
def test_a_payload_that_died_is_told_from_one_that_names_a_stranger(kind, codec):
    carrier, keys, read = reader(kind, codec)
    image = issue_images(carrier, keys, USERS, first=7)
    assert [read(each).user for each in image] == USERS
    for quality in (95, 75):
        found = read(roundtrip(image, "jpeg", quality)[0])
        assert found.user is None
        assert "the payload died in 1 of 1 key images" in found.reason
    assert "died" not in read(image[0], ["bob"]).reason  # a name that is not known is no damage


def test_images_are_handed_out_from_the_first_on_and_begin_anew():
    carrier, keys, _ = reader("bits", "lsb-ecc")
    assert torch.equal(issue_images(carrier, keys, USERS, first=7) >> 1, keys[[7, 0]] >> 1)


def test_of_an_image_that_was_no_key_image_nothing_died():
    _, _, read = reader("bits", "lsb-ecc")
    for images in (family("procedural", 20, SHAPE, rng=generator(1)), noise(20, SHAPE, rng=generator(2)), torch.zeros(1, *SHAPE).byte()):
        reasons = {read(image).reason for image in images}
        assert all(reason.startswith("no payload can be read") for reason in reasons)


def test_a_picture_in_coefficients_is_never_called_dead():
    carrier, keys, read = reader("image", "qim")
    image = issue_images(carrier, keys, ["ann"])[0]
    assert "died" not in read(image, ["bob"]).reason  # the coefficients of a stranger's picture change the image as damage does
