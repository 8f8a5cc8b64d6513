//! Lets requests in whose `:authority` is the name of an Istio cluster, such as `outbound|8081||ratelimit.default.svc`: Envoy
//! sends its cluster's name unless `envoy_grpc` has an `authority`, and h2 resets streams whose authority is no URI's, before
//! anything of ours sees them. Nothing here reads the authority, so each `|` of it becomes a `+` on its way to h2.
//!
//! Both are one byte, and both are 11 bits in HPACK's Huffman code: no length changes, so that the tables of compression
//! stay the same on both sides, and a value that is sent once and then referred to stays changed. Bytes are changed where
//! they lie; nothing is kept back or copied. What is malformed, or split over two reads in the middle of a `|`, stays as it
//! came, and h2 refuses it.

/// Bytes of the connection preface before the first frame (RFC 9113, 3.4).
const PREFACE: usize = 24;
/// Bytes of a frame's header.
const HEADER: usize = 9;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// `:authority` in HPACK's static table.
const AUTHORITY: usize = 1;
/// Codes of HPACK's Huffman code by their length in bits: the length, the first code, and how many there are. Longer ones
/// stand for nothing that a name has.
const CODES: [(u32, u32, u32); 6] = [
    (5, 0, 10),
    (6, 20, 26),
    (7, 92, 32),
    (8, 248, 6),
    (10, 1016, 5),
    (11, 2042, 3),
];
/// The code of `|`; that of `+` differs in its last three bits.
const BAR: u32 = 2044;
const LONGEST: u32 = 11;

/// Follows the frames that a client sends, whatever pieces they come in.
#[derive(Debug)]
pub(super) struct AuthorityFilter {
    /// The header of the frame under way.
    header: [u8; HEADER],
    filled: usize,
    /// Bytes that are still to come and not looked at: the preface, payloads of other frames, padding.
    skip: usize,
    /// Bytes of a header block before its fields: pad length, priority.
    before: usize,
    /// Bytes of the block in this frame.
    block: usize,
    /// Bytes of padding behind the block.
    padding: usize,
    fields: Fields,
}

/// Where in a header block the next byte is (RFC 7541, 6).
#[derive(Debug, Clone, Copy)]
enum Fields {
    /// A field begins.
    Begin,
    /// A number goes on.
    Number { so_far: usize, shift: u32, of: Number },
    /// A text begins.
    Text { of: Text },
    /// Bytes of a text that are not looked at.
    Skip { left: usize, of: Text },
    /// Bytes of an authority as they are.
    Plain { left: usize },
    /// Bytes of an authority in the Huffman code; the code under way.
    Huffman { left: usize, code: u32, bits: u32 },
    /// Nothing can be told of the rest.
    Lost,
}

#[derive(Debug, Clone, Copy)]
enum Number {
    /// Nothing follows it: a field that is known whole, or a table's size.
    Whole,
    /// The index of a name, or 0; a value follows.
    Name,
    /// The length of a text.
    Length { of: Text, is_huffman: bool },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Text {
    Name,
    Value,
    Authority,
}

impl AuthorityFilter {
    pub const fn new() -> Self {
        Self {
            header: [0; HEADER],
            filled: 0,
            skip: PREFACE,
            before: 0,
            block: 0,
            padding: 0,
            fields: Fields::Begin,
        }
    }

    /// Changes what has just been read.
    pub fn pass(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            let taken = if self.skip > 0 {
                let taken = self.skip.min(bytes.len());
                self.skip -= taken;
                taken
            } else if self.before > 0 {
                self.begin_block(bytes[0]);
                1
            } else if self.block > 0 {
                let taken = self.block.min(bytes.len());
                self.block -= taken;
                self.fields = self.fields.pass(&mut bytes[..taken]);
                if self.block == 0 {
                    self.skip = std::mem::take(&mut self.padding);
                }
                taken
            } else {
                self.begin_frame(bytes)
            };
            bytes = &mut bytes[taken..];
        }
    }

    fn begin_frame(&mut self, bytes: &[u8]) -> usize {
        let taken = (HEADER - self.filled).min(bytes.len());
        self.header[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
        self.filled += taken;
        if self.filled < HEADER {
            return taken;
        }
        self.filled = 0;
        let [a, b, c, kind, flags, ..] = self.header;
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        match kind {
            HEADERS => {
                self.before = usize::from(flags & PADDED > 0) + if flags & PRIORITY > 0 { 5 } else { 0 };
                self.fields = Fields::Begin;
            }
            CONTINUATION => self.before = 0,
            _ => {
                self.skip = length;
                return taken;
            }
        }
        (self.before, self.padding) = (self.before.min(length), 0);
        self.block = length - self.before;
        taken
    }

    fn begin_block(&mut self, byte: u8) {
        let [.., kind, flags, _, _, _, _] = self.header;
        let is_first = self.before == usize::from(flags & PADDED > 0) + if flags & PRIORITY > 0 { 5 } else { 0 };
        if kind == HEADERS && flags & PADDED > 0 && is_first {
            self.padding = usize::from(byte).min(self.block);
            self.block -= self.padding;
        }
        self.before -= 1;
        if self.before == 0 && self.block == 0 {
            self.skip = std::mem::take(&mut self.padding);
        }
    }
}

impl Fields {
    /// The state behind these bytes of a header block.
    fn pass(mut self, mut bytes: &mut [u8]) -> Self {
        while let Some(&byte) = bytes.first() {
            let mut taken = 1;
            self = match self {
                Self::Begin if byte & 0x80 > 0 => Number::Whole.begin(byte, 0x7f),
                Self::Begin if byte & 0x40 > 0 => Number::Name.begin(byte, 0x3f),
                Self::Begin if byte & 0x20 > 0 => Number::Whole.begin(byte, 0x1f),
                Self::Begin => Number::Name.begin(byte, 0x0f),
                Self::Number { so_far, shift, of } => of.go_on(so_far, shift, byte),
                Self::Text { of } => {
                    let is_huffman = byte & 0x80 > 0;
                    Number::Length { of, is_huffman }.begin(byte, 0x7f)
                }
                Self::Skip { left, of } => {
                    taken = left.min(bytes.len());
                    match left - taken {
                        0 => of.end(),
                        left => Self::Skip { left, of },
                    }
                }
                Self::Plain { left } => {
                    taken = left.min(bytes.len());
                    let bars = bytes[..taken].iter_mut().filter(|byte| **byte == b'|');
                    bars.for_each(|byte| *byte = b'+');
                    match left - taken {
                        0 => Self::Begin,
                        left => Self::Plain { left },
                    }
                }
                Self::Huffman { left, code, bits } => {
                    taken = left.min(bytes.len());
                    decode(&mut bytes[..taken], left - taken, code, bits)
                }
                Self::Lost => return Self::Lost,
            };
            bytes = &mut bytes[taken..];
        }
        self
    }
}

impl Number {
    const fn begin(self, byte: u8, mask: u8) -> Fields {
        match byte & mask {
            full if full == mask => Fields::Number {
                so_far: mask as usize,
                shift: 0,
                of: self,
            },
            number => self.end(number as usize),
        }
    }

    const fn go_on(self, so_far: usize, shift: u32, byte: u8) -> Fields {
        // Longer ones are longer than any header block.
        if shift > 21 {
            return Fields::Lost;
        }
        let so_far = so_far + (((byte & 0x7f) as usize) << shift);
        match byte & 0x80 {
            0 => self.end(so_far),
            _ => Fields::Number {
                so_far,
                shift: shift + 7,
                of: self,
            },
        }
    }

    const fn end(self, number: usize) -> Fields {
        match self {
            Self::Whole => Fields::Begin,
            Self::Name => Fields::Text {
                of: match number {
                    0 => Text::Name,
                    AUTHORITY => Text::Authority,
                    _ => Text::Value,
                },
            },
            Self::Length { of, .. } if number == 0 => of.end(),
            Self::Length {
                of: Text::Authority,
                is_huffman: true,
            } => Fields::Huffman {
                left: number,
                code: 0,
                bits: 0,
            },
            Self::Length {
                of: Text::Authority, ..
            } => Fields::Plain { left: number },
            Self::Length { of, .. } => Fields::Skip { left: number, of },
        }
    }
}

impl Text {
    /// What follows it.
    const fn end(self) -> Fields {
        match self {
            Self::Name => Fields::Text { of: Self::Value },
            Self::Value | Self::Authority => Fields::Begin,
        }
    }
}

/// Follows the codes of these bytes; `left` more come of the same text.
fn decode(bytes: &mut [u8], left: usize, mut code: u32, mut bits: u32) -> Fields {
    for at in 0..bytes.len() {
        for bit in (0..8).rev() {
            code = code << 1 | u32::from(bytes[at] >> bit & 1);
            bits += 1;
            let is_code = CODES
                .iter()
                .any(|&(length, first, count)| length == bits && code < first + count);
            if is_code {
                if bits == LONGEST && code == BAR {
                    flip(bytes, at, bit);
                }
                (code, bits) = (0, 0);
            } else if bits == LONGEST {
                // A longer code: no name has it.
                return match left {
                    0 => Fields::Begin,
                    left => Fields::Skip { left, of: Text::Value },
                };
            }
        }
    }
    match left {
        0 => Fields::Begin,
        left => Fields::Huffman { left, code, bits },
    }
}

/// Turns the last three bits of a code over, which ends at this bit of this byte.
fn flip(bytes: &mut [u8], at: usize, bit: u32) {
    let changed = 0b111_u32 << bit;
    let (own, before) = (changed & 0xff, changed >> 8);
    if before == 0 {
        bytes[at] ^= own as u8;
    } else if at > 0 {
        bytes[at] ^= own as u8;
        bytes[at - 1] ^= before as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        [&[0, 0, length, kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn connection(frames: &[Vec<u8>]) -> Vec<u8> {
        [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", frames.concat().as_slice()].concat()
    }

    fn passed(bytes: &[u8], piece: usize) -> Vec<u8> {
        let mut filter = AuthorityFilter::new();
        let mut bytes = bytes.to_vec();
        bytes.chunks_mut(piece).for_each(|bytes| filter.pass(bytes));
        bytes
    }

    /// Codes as bits, the last byte filled with ones.
    fn packed(codes: &[(u32, u32)]) -> Vec<u8> {
        let all: String = codes
            .iter()
            .map(|(code, bits)| format!("{code:0width$b}", width = *bits as usize))
            .collect();
        let padded = format!("{all:1<width$}", width = all.len().div_ceil(8) * 8);
        let byte = |at: usize| u8::from_str_radix(&padded[at..at + 8], 2).unwrap();
        (0..padded.len()).step_by(8).map(byte).collect()
    }

    #[test]
    fn an_authority_is_changed_in_any_pieces_and_nothing_else_is() {
        let authority = |text: &[u8]| [&[0x41, text.len() as u8], text].concat();
        let other = [0x40, 3, b'a', b'|', b'b', 2, b'|', b'|'];
        let long = [0x7f, 0x80, 0x01, 1, b'|'];
        let indexed = [0x82, 0xc0, 0x3f, 0xe1, 0x1f];
        let block = |text: &[u8]| {
            [
                &other[..],
                &indexed,
                &long,
                &authority(text),
                &[0x04, 1, b'|'],
                &indexed,
            ]
            .concat()
        };
        let split = block(b"a||b|c");
        let frames = |text: &[u8]| {
            let whole = block(text);
            let padded = [&[3_u8][..], &[0, 0, 0, 0, b'|'], whole.as_slice(), b"|||"].concat();
            connection(&[
                frame(4, 0, b"|\x41\x01|"),
                frame(HEADERS, 0x4, &whole),
                frame(0, 0, b"|||"),
                frame(HEADERS, 0x4 | PADDED | PRIORITY, &padded),
                frame(HEADERS, 0, &whole[..20]),
                frame(CONTINUATION, 0, &whole[20..whole.len() - 9]),
                frame(CONTINUATION, 0x4, &whole[whole.len() - 9..]),
            ])
        };
        assert_eq!(split.len(), block(b"a++b+c").len());
        for piece in 1..200 {
            assert_eq!(passed(&frames(b"a||b|c"), piece), frames(b"a++b+c"), "{piece}");
        }
    }

    #[test]
    fn so_is_one_in_the_huffman_code_unless_a_bar_is_split_over_two_reads() {
        let (a, b, dash, bar, plus) = ((3, 5), (0b10_0011, 6), (0b1_0110, 6), (BAR, 11), (BAR - 1, 11));
        for shift in 0..8 {
            // Each bar at another place in its byte.
            let text = |bar| {
                let mut codes = vec![a; shift];
                codes.extend([bar, b, bar, bar, dash, bar, a, bar]);
                let text = packed(&codes);
                let block = [&[0x41, 0x80 | text.len() as u8], text.as_slice(), &[0x82]].concat();
                connection(&[frame(HEADERS, 0x4, &block)])
            };
            assert_eq!(passed(&text(bar), usize::MAX), text(plus), "{shift}");
            for piece in 1..text(bar).len() {
                let (before, after) = (text(bar), passed(&text(bar), piece));
                assert_eq!(before.len(), after.len());
                // Whatever the pieces, only bits of bars are other ones.
                for ((before, after), plus) in before.iter().zip(&after).zip(text(plus)) {
                    assert_eq!((before ^ after) & !(before ^ plus), 0);
                }
            }
        }
    }

    #[test]
    fn hostile_blocks_end_nothing() {
        let mut bytes: Vec<u8> = connection(&[]);
        let mut random = 1_u32;
        bytes.extend((0..100_000).map(|_| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (random >> 24) as u8
        }));
        for piece in [1, 7, 4096] {
            assert_eq!(passed(&bytes, piece).len(), bytes.len());
        }
        let endless = [&[0x41, 0xff][..], &[0xff; 40]].concat();
        assert_eq!(
            passed(&connection(&[frame(HEADERS, 4, &endless)]), 5).len(),
            24 + 9 + 42
        );
    }
}
