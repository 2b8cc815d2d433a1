//! Tests of a campaign's file: what is torn is cut, what is whole is kept, and any place is found.

use std::fs;
use std::os::unix::fs::symlink;

use bytes::Bytes;

use super::*;
use crate::clock::Timestamp;
use tempfile::TempDir;

const CAMPAIGN: CampaignId = CampaignId(5);

fn answer(host: u32, bytes: usize) -> Answer {
    Answer {
        host: HostId(host),
        failed: false,
        body: Bytes::from(vec![b'x'; bytes]),
    }
}

fn handed(times: u8) -> HandedOut {
    let at = Timestamp(u64::from(times));
    HandedOut { at, times }
}

impl LogFile {
    /// Adds a batch, all of it or nothing, with one write. Blocks.
    fn write(&mut self, batch: Batch) -> Result<(), StoreError> {
        let mut write = self.begin(batch);
        write.run()?;
        self.took(&write);
        Ok(())
    }
}

/// Writes answers of these sizes, each with a hand-out behind it.
fn write(file: &mut LogFile, sizes: &[usize]) {
    for bytes in sizes {
        let mut batch = Batch::default();
        let seq = file.last().next();
        let host = u32::try_from(seq.0).unwrap();
        batch.put_answer(seq, &answer(host, *bytes));
        batch.put_hand_out(HostId(host), handed(1));
        file.write(batch).unwrap();
    }
}

fn reload(path: &Path) -> (LogFile, Vec<Entry>) {
    let mut entries = Vec::new();
    let aside = path.with_extension("aside");
    let visit = |entry| entries.push(entry);
    let (file, _) = LogFile::reload(CAMPAIGN, path.to_owned(), &aside, visit).unwrap();
    (file, entries)
}

/// Everything that can be read, in pages.
fn read_all(file: &mut LogFile, mut after: Seq, max_bytes: usize) -> Vec<Record> {
    let mut all = Vec::new();
    loop {
        let reader = file.reader(after);
        if reader.is_done() {
            return all;
        }
        let (records, points) = reader.read(max_bytes).unwrap();
        file.learn(&points);
        after = records.last().unwrap().seq;
        all.extend(records);
    }
}

#[test]
fn a_file_cut_anywhere_keeps_every_entry_before_the_cut_and_goes_on() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("5.log");
    let mut file = LogFile::new(CAMPAIGN, path.clone());
    write(&mut file, &[0, 1, 40, 3]);
    let whole = fs::read(&path).unwrap();
    let (_, entries) = reload(&path);
    assert_eq!(entries.len(), 8);
    for cut in 0..whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        let (mut file, kept) = reload(&path);
        assert_eq!(kept, entries[..kept.len()]);
        assert_eq!(fs::metadata(&path).unwrap().len(), file.len, "cut at {cut}");
        let before = file.last();
        write(&mut file, &[7]);
        let (mut file, again) = reload(&path);
        assert_eq!(file.last(), before.next());
        assert_eq!(again.len(), kept.len() + 2);
        assert_eq!(read_all(&mut file, Seq(0), 1).len() as u64, file.last().0);
    }
}

#[test]
fn what_is_damaged_is_never_shown_and_what_stands_behind_it_is_kept() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("5.log");
    let mut file = LogFile::new(CAMPAIGN, path.clone());
    write(&mut file, &[10, 10, 10]);
    let whole = fs::read(&path).unwrap();
    let (_, entries) = reload(&path);
    let hosts = |entries: &[Entry]| -> Vec<(bool, HostId)> {
        let host = |entry: &Entry| match entry {
            Entry::Answer(record) => (true, record.answer.host),
            Entry::HandOut(host, _) => (false, *host),
        };
        entries.iter().map(host).collect()
    };
    for at in PREAMBLE_BYTES as usize..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x55;
        fs::write(&path, &damaged).unwrap();
        let (mut file, kept) = reload(&path);
        assert_eq!(kept.len(), entries.len() - 1, "at {at}");
        let (kept, all) = (hosts(&kept), hosts(&entries));
        assert!(kept.iter().all(|each| all.contains(each)));
        // What was written anew reads back as it is, and goes on.
        let answers = kept.iter().filter(|(is_answer, _)| *is_answer).count();
        assert_eq!(file.last(), Seq(answers as u64));
        assert_eq!(read_all(&mut file, Seq(0), 1).len(), answers);
        write(&mut file, &[7]);
        let (file, again) = reload(&path);
        assert_eq!(
            (file.last(), again.len()),
            (Seq(answers as u64 + 1), kept.len() + 2)
        );
    }
    let aside = fs::read_dir(path.with_extension("aside")).unwrap();
    assert!(aside.count() > 50, "each damaged file is kept");
}

#[test]
fn answers_out_of_order_get_places_in_order() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("5.log");
    let mut file = LogFile::new(CAMPAIGN, path.clone());
    write(&mut file, &[1, 1]);
    let mut batch = Batch::default();
    batch.put_answer(Seq(4), &answer(9, 1));
    file.write(batch).unwrap();
    assert_eq!(reload(&path).0.last(), Seq(3));
}

#[test]
fn a_file_that_is_not_this_campaigns_is_set_aside() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("5.log");
    let aside = directory.path().join("aside");
    for (number, content) in [
        b"garbage, and more than a preamble".to_vec(),
        vec![7; 100_000],
    ]
    .into_iter()
    .enumerate()
    {
        fs::write(&path, &content).unwrap();
        let reloaded = LogFile::reload(CAMPAIGN, path.clone(), &aside, |_| ());
        let (mut file, is_mended) = reloaded.unwrap();
        assert!(is_mended == Reloaded::Mended && file.last() == Seq(0));
        assert_eq!(
            fs::read(aside.join(format!("5.log.{number}"))).unwrap(),
            content
        );
        write(&mut file, &[1]);
        assert_eq!(reload(&path).0.last(), Seq(1));
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_file_of_a_later_version_is_left_as_it_is_and_told() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("5.log");
    write(&mut LogFile::new(CAMPAIGN, path.clone()), &[1]);
    let mut later = fs::read(&path).unwrap();
    later[7] += 1;
    fs::write(&path, &later).unwrap();
    let refused = LogFile::reload(CAMPAIGN, path.clone(), directory.path(), |_| ());
    assert!(matches!(refused, Err(StoreError::Damaged(told)) if told.contains("newer answerback")));
    assert_eq!(fs::read(&path).unwrap(), later);
}

#[test]
fn any_place_is_found_without_reading_much_before_it() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("5.log");
    let mut file = LogFile::new(CAMPAIGN, path.clone());
    let sizes: Vec<usize> = (0..1_500).map(|at| at * 7 % 1_999).collect();
    write(&mut file, &sizes);
    write(&mut file, &[700_000, 3]);
    let ended = LogFile::ended(CAMPAIGN, path.clone(), file.last());
    for mut file in [file, reload(&path).0, ended] {
        for after in [0, 1, 77, 1_000, 1_499, 1_500, 1_501] {
            let records = read_all(&mut file, Seq(after), 100_000);
            let places: Vec<u64> = records.iter().map(|record| record.seq.0).collect();
            assert_eq!(places, (after + 1..=1_502).collect::<Vec<_>>());
            for record in &records {
                let size = sizes.get(record.seq.0 as usize - 1).copied();
                let size = size.unwrap_or(if record.seq.0 == 1_501 { 700_000 } else { 3 });
                let host = u32::try_from(record.seq.0).unwrap();
                assert_eq!(record.answer, answer(host, size));
            }
        }
        let reader = file.reader(Seq(1_400));
        assert!(
            reader.from > reader.end / 2,
            "it begins near what is wanted"
        );
    }
}

#[test]
fn a_full_disk_is_told_and_the_file_goes_on_when_there_is_room() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("5.log");
    symlink("/dev/full", &path).unwrap();
    let mut file = LogFile::new(CAMPAIGN, path.clone());
    let mut batch = Batch::default();
    batch.put_hand_out(HostId(1), handed(1));
    let waiting = batch.len();
    batch.put_answer(Seq(1), &answer(1, 10));
    let mut begun = file.begin(batch);
    let refused = begun.run();
    assert!(matches!(refused, Err(StoreError::Full(_))), "{refused:?}");
    assert_eq!(file.last(), Seq(0));
    let mut batch = begun.into_batch();
    batch.truncate(waiting);
    fs::remove_file(&path).unwrap();
    file.write(batch).unwrap();
    write(&mut file, &[10]);
    let (file, entries) = reload(&path);
    assert_eq!((file.last(), entries.len()), (Seq(1), 3));
}
