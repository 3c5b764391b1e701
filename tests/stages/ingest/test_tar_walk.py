"""Whatever is done to a tar: each member is found whole, or damage is told."""

import random
import subprocess
import tarfile

import pytest
from tars import samples, tar

from vitpipe.stages.ingest.sources.patterns import find_files
from vitpipe.stages.ingest.sources.tar_walk import Damage, Member, packed_as, walk
from vitpipe.stages.ingest.sources.window import Window


def look(path):
    window = Window(find_files([str(path)], ".tar")[0])
    return list(walk(window))


def names(found):
    return [one.name for one in found if isinstance(one, Member)]


@pytest.fixture
def whole(tmp_path):
    return tar(tmp_path / "a.tar", samples(0, 3))


def test_a_whole_tar_is_what_tarfile_says(whole):
    found = look(whole)
    with tarfile.open(whole) as file:
        assert [(one.name, one.offset, one.size) for one in found] == [
            (one.name, one.offset_data, one.size) for one in file
        ]


def test_every_cut_is_told_and_costs_only_what_is_cut(whole):
    data, members = whole.read_bytes(), look(whole)
    end = max(one.offset + -(-one.size // 512) * 512 for one in members)
    for cut in range(len(data)):
        whole.write_bytes(data[:cut])
        found = look(whole)
        kept = [one for one in members if one.offset + one.size <= cut]
        assert [one for one in found if isinstance(one, Member)] == kept
        if 0 < cut < end + 512:  # behind that an end marker stands: nothing is missing
            assert isinstance(found[-1], Damage), cut


def test_every_flipped_bit_of_a_header_is_told(whole):
    data, members = bytearray(whole.read_bytes()), look(whole)
    headers = [one.offset - 512 for one in members]
    chance = random.Random(0)
    told = 0
    for _ in range(400):
        place = chance.choice(headers) + chance.randrange(512)
        bit = 1 << chance.randrange(8)
        data[place] ^= bit
        whole.write_bytes(data)
        found = look(whole)
        data[place] ^= bit
        told += found != members
        assert found == members or any(isinstance(one, Damage) for one in found), place
        assert len(names(found)) >= len(members) - 1  # one member is lost, those behind it are not
        assert set(names(found)) <= {one.name for one in members}
    assert told > 390  # all but those in the last byte of the checksum's field, which has no meaning


def test_long_and_foreign_names(tmp_path):
    long = "unterlagen/" + "n" * 300 + ".jpg"
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        path = tmp_path / f"{form}.tar"
        with tarfile.open(path, "w", format=form) as file:
            for name in (long, "ü.jpg"):
                file.addfile(tarfile.TarInfo(name))
        assert names(look(path)) == [long, "ü.jpg"]
    broken = tmp_path / "latin.tar"
    with tarfile.open(broken, "w", format=tarfile.USTAR_FORMAT, encoding="latin-1") as file:
        file.addfile(tarfile.TarInfo("ü.jpg"))
    assert names(look(broken)) == ["\udcfc.jpg"]


def test_tars_laid_end_to_end_are_read_whole(tmp_path, whole):
    joined = tmp_path / "joined.tar"
    joined.write_bytes(whole.read_bytes() + tar(tmp_path / "b.tar", samples(3, 2)).read_bytes())
    found = look(joined)
    assert names(found)[-1] == "0004.cls" and len(found) == 10


def test_links_folders_and_packed_files(tmp_path, whole):
    path = tmp_path / "links.tar"
    with tarfile.open(path, "w") as file:
        folder, link = tarfile.TarInfo("folder"), tarfile.TarInfo("link.jpg")
        folder.type, link.type, link.linkname = tarfile.DIRTYPE, tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(folder)
        file.addfile(link)
    (found,) = look(path)
    assert isinstance(found, Member) and found.fault == "it is a link to '/etc/passwd'"
    with tarfile.open(tmp_path / "packed.tar", "w:gz") as file:
        file.addfile(tarfile.TarInfo("a.jpg"))
    assert packed_as(Window(find_files([str(tmp_path / "packed.tar")], ".tar")[0])) == "gzip"
    assert packed_as(Window(find_files([str(whole)], ".tar")[0])) is None


@pytest.mark.parametrize("way", ["gnu", "posix"])
@pytest.mark.parametrize("holes", [1, 40])  # more than a header has room for
def test_sparse_files_are_told_and_what_is_behind_them_is_found(tmp_path, way, holes):
    with (tmp_path / "a.jpg").open("wb") as file:
        for hole in range(holes):
            file.seek(65_536 * (2 * hole + 1))
            file.write(b"x" * 4096)
    (tmp_path / "b.jpg").write_bytes(b"y" * 700)
    command = ["tar", "--create", "--sparse", f"--format={way}", "--file=s.tar", "a.jpg", "b.jpg"]
    subprocess.run(command, cwd=tmp_path, check=True)
    found = look(tmp_path / "s.tar")
    members = [one for one in found if isinstance(one, Member)]
    whole = [one for one in members if not one.fault]
    assert [(one.name, one.size) for one in whole] == [("b.jpg", 700)]
    assert (tmp_path / "s.tar").read_bytes()[whole[0].offset :].startswith(b"y" * 700)
    assert [one.fault for one in members if one.fault] == ["it is stored as a sparse file"]
