//! Log files, compressed or not, merged in order of time.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use flate2::read::MultiGzDecoder;
use memchr::memchr;
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};

use super::format::Format;
use super::record::Record;
use super::unreadable::Unreadable;

/// What is read at a time.
const CHUNK_BYTES: usize = 256 << 10;
/// Longest line; a longer one is counted as unreadable.
const MAX_LINE_BYTES: usize = 64 << 10;
/// Files that are read side by side at most, because their times overlap.
const MAX_OPEN: usize = 200;
/// The standard input.
const STDIN: &str = "-";

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {error}", path = path.display())]
pub struct InputError {
    /// Which file.
    pub path: PathBuf,
    /// Why.
    pub error: io::Error,
}

/// All logs as one stream, in order of time as far as each log itself is.
pub struct Merged<'f> {
    format: &'f Format,
    /// Not opened yet, the earliest last; with the time of their first line.
    waiting: Vec<(u64, PathBuf)>,
    open: Vec<Open>,
    read_bytes: Arc<AtomicU64>,
    /// Bytes of all files, where all are known.
    pub total_bytes: Option<u64>,
    /// Lines that could not be used.
    pub unreadable: Unreadable,
    /// Lines, readable or not.
    pub lines: u64,
}

/// A log with its next record.
struct Open {
    path: PathBuf,
    lines: Lines,
    next: Box<Record>,
}

/// Logs that nothing has been read of yet.
pub struct LogFiles {
    logs: Vec<Log>,
    read_bytes: Arc<AtomicU64>,
}

struct Log {
    path: PathBuf,
    /// What can be read only once: the standard input, a pipe; `None` = a file, which can be opened again.
    stream: Option<Lines>,
}

impl LogFiles {
    /// Opens what can be read only once.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn open(paths: &[PathBuf]) -> Result<Self, InputError> {
        let read_bytes = Arc::default();
        let open = |path: &PathBuf| {
            let is_file = path.as_os_str() != STDIN && size(path)?.is_some();
            let stream = (!is_file).then(|| Lines::open(path, Arc::clone(&read_bytes)));
            let stream = stream.transpose()?;
            let path = path.clone();
            Ok(Log { path, stream })
        };
        let logs = paths.iter().map(open).collect::<Result<_, _>>()?;
        Ok(Self { logs, read_bytes })
    }

    /// The first line of the first log that is not empty, to tell the format by. It is read again.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn first_line(&mut self) -> Result<String, InputError> {
        for Log { path, stream } in &mut self.logs {
            let line = match stream {
                Some(lines) => lines.peek().map(ToOwned::to_owned),
                None => Lines::open(path, Arc::default())?.peek().map(ToOwned::to_owned),
            };
            let line = line.map_err(|error| failed(path, error))?;
            if !line.is_empty() {
                return Ok(String::from_utf8_lossy(&line).into_owned());
            }
        }
        Ok(String::new())
    }
}

/// Bytes of a file; `None` for what is none.
fn size(path: &Path) -> Result<Option<u64>, InputError> {
    let metadata = std::fs::metadata(path).map_err(|error| failed(path, error))?;
    Ok(metadata.is_file().then_some(metadata.len()))
}

impl<'f> Merged<'f> {
    /// Looks at the first line of every file, so that they can be read in order of time, whatever their order here.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn open(logs: LogFiles, format: &'f Format) -> Result<Self, InputError> {
        let mut merged = Self {
            format,
            waiting: Vec::new(),
            open: Vec::new(),
            read_bytes: logs.read_bytes,
            total_bytes: Some(0),
            unreadable: Unreadable::default(),
            lines: 0,
        };
        for Log { path, stream } in logs.logs {
            if let Some(lines) = stream {
                merged.total_bytes = None;
                merged.start(path, lines)?;
                continue;
            }
            let size = size(&path)?.unwrap_or_default();
            merged.total_bytes = merged.total_bytes.map(|total| total + size);
            merged.waiting.push((first_time(&path, format)?, path));
        }
        merged.waiting.sort_by(|one, other| other.cmp(one));
        Ok(merged)
    }

    /// Bytes of the files that have been read.
    #[must_use]
    pub fn read_bytes(&self) -> u64 {
        self.read_bytes.load(Relaxed)
    }

    /// Swaps the next record in; `false` at the end of all logs.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn next(&mut self, record: &mut Box<Record>) -> Result<bool, InputError> {
        loop {
            let earliest = self.open.iter().enumerate().min_by_key(|(_, open)| open.next.at_us);
            let earliest = earliest.map(|(at, open)| (at, open.next.at_us));
            if let Some((first_us, _)) = self.waiting.last()
                && earliest.is_none_or(|(_, at_us)| *first_us <= at_us)
                && let Some((_, path)) = self.waiting.pop()
            {
                let lines = Lines::open(&path, Arc::clone(&self.read_bytes))?;
                self.start(path, lines)?;
                continue;
            }
            let Some((at, _)) = earliest else {
                return Ok(false);
            };
            let Some(open) = self.open.get_mut(at) else {
                return Ok(false);
            };
            std::mem::swap(record, &mut open.next);
            let (lines, unreadable) = (&mut self.lines, &mut self.unreadable);
            if !advance(open, self.format, lines, unreadable)? {
                self.open.swap_remove(at);
            }
            return Ok(true);
        }
    }

    fn start(&mut self, path: PathBuf, lines: Lines) -> Result<(), InputError> {
        if self.open.len() >= MAX_OPEN {
            let reason = format!("more than {MAX_OPEN} logs overlap in time: replay them in parts");
            return Err(failed(&path, io::Error::other(reason)));
        }
        let mut open = Open {
            path,
            lines,
            next: Box::default(),
        };
        if advance(&mut open, self.format, &mut self.lines, &mut self.unreadable)? {
            self.open.push(open);
        }
        Ok(())
    }
}

/// Reads on to the next line that can be used.
fn advance(open: &mut Open, format: &Format, count: &mut u64, unreadable: &mut Unreadable) -> Result<bool, InputError> {
    let Open { path, lines, next } = open;
    while let Some(line) = lines.next().map_err(|error| failed(path, error))? {
        *count += 1;
        match line {
            Ok(b"") => *count -= 1,
            Ok(line) => match format.parse(line, next) {
                Ok(()) => return Ok(true),
                Err(reason) => unreadable.add(reason, || String::from_utf8_lossy(line).into_owned()),
            },
            Err(TooLong) => unreadable.add("longer than 64 KiB", || path.display().to_string()),
        }
    }
    Ok(false)
}

fn first_time(path: &Path, format: &Format) -> Result<u64, InputError> {
    let mut open = Open {
        path: path.to_owned(),
        lines: Lines::open(path, Arc::default())?,
        next: Box::default(),
    };
    let found = advance(&mut open, format, &mut 0, &mut Unreadable::default())?;
    Ok(if found { open.next.at_us } else { 0 })
}

fn failed(path: &Path, error: io::Error) -> InputError {
    InputError {
        path: path.to_owned(),
        error,
    }
}

/// A line that is longer than any that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct TooLong;

/// The lines of one file.
struct Lines {
    reader: Box<dyn Read>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    ended: bool,
    /// In the middle of a line that is too long.
    skipping: bool,
}

impl Lines {
    fn open(path: &Path, counter: Arc<AtomicU64>) -> Result<Self, InputError> {
        let file: Box<dyn Read> = if path.as_os_str() == STDIN {
            Box::new(io::stdin())
        } else {
            Box::new(File::open(path).map_err(|error| failed(path, error))?)
        };
        let counting = Counting { inner: file, counter };
        Ok(Self {
            reader: decompressed(counting).map_err(|error| failed(path, error))?,
            buffer: vec![0; CHUNK_BYTES],
            start: 0,
            end: 0,
            ended: false,
            skipping: false,
        })
    }

    /// The first line, which stays the next one; nothing if it is longer than any that is read.
    fn peek(&mut self) -> io::Result<&[u8]> {
        loop {
            let end = memchr(b'\n', &self.buffer[self.start..self.end]).map(|at| self.start + at);
            let end = end.or(self.ended.then_some(self.end));
            if let Some(end) = end {
                return Ok(&self.buffer[self.start..end]);
            }
            if self.end - self.start > MAX_LINE_BYTES {
                return Ok(&[]);
            }
            self.fill()?;
        }
    }

    /// The next line without its end.
    fn next(&mut self) -> io::Result<Option<Result<&[u8], TooLong>>> {
        loop {
            if let Some(at) = memchr(b'\n', &self.buffer[self.start..self.end]) {
                let line = self.start..self.start + at;
                self.start += at + 1;
                if std::mem::take(&mut self.skipping) || line.len() > MAX_LINE_BYTES {
                    return Ok(Some(Err(TooLong)));
                }
                let line = &self.buffer[line];
                return Ok(Some(Ok(line.strip_suffix(b"\r").unwrap_or(line))));
            }
            if self.ended {
                let line = self.start..self.end;
                self.start = self.end;
                return match line.is_empty() {
                    true => Ok(None),
                    false if self.skipping => Ok(Some(Err(TooLong))),
                    false => Ok(Some(Ok(&self.buffer[line]))),
                };
            }
            self.fill()?;
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        if self.end - self.start > MAX_LINE_BYTES {
            self.skipping = true;
            self.start = self.end;
        }
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        let read = self.reader.read(&mut self.buffer[self.end..])?;
        self.end += read;
        self.ended = read == 0;
        Ok(())
    }
}

/// Looks at the first bytes: gzip and zstd are known by theirs.
fn decompressed(mut reader: Counting) -> io::Result<Box<dyn Read>> {
    let mut magic = [0; 4];
    let mut have = 0;
    while have < magic.len() {
        match reader.read(&mut magic[have..])? {
            0 => break,
            read => have += read,
        }
    }
    let start = io::Cursor::new(magic).take(have as u64);
    let whole = BufReader::with_capacity(CHUNK_BYTES, start.chain(reader));
    Ok(match magic {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(whole)),
        [0x28, 0xb5, 0x2f, 0xfd] => Box::new(Zstd::new(whole)?),
        _ => Box::new(whole),
    })
}

/// Counts what is read.
struct Counting {
    inner: Box<dyn Read>,
    counter: Arc<AtomicU64>,
}

impl Read for Counting {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.counter.fetch_add(read as u64, Relaxed);
        Ok(read)
    }
}

/// Frames of zstd, one after the other.
struct Zstd<R: BufRead> {
    frame: Option<StreamingDecoder<R, FrameDecoder>>,
}

impl<R: BufRead> Zstd<R> {
    fn new(source: R) -> io::Result<Self> {
        let frame = StreamingDecoder::new(source).map_err(io::Error::other)?;
        Ok(Self { frame: Some(frame) })
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(frame) = &mut self.frame {
            let read = frame.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            let Some(mut source) = self.frame.take().map(StreamingDecoder::into_inner) else {
                break;
            };
            if !source.fill_buf()?.is_empty() {
                *self = Self::new(source)?;
            }
        }
        Ok(0)
    }
}
