//! Accepts requests whose `:authority` is the name of an Istio cluster, such as `outbound|8081||ratelimit.default.svc`: Envoy
//! sends its cluster's name unless `envoy_grpc` has an `authority`, and h2 resets streams whose authority is not valid in a
//! URI, before a service sees them. The server does not use the authority, so each `|` in it is changed to `+` before h2 reads it.
//!
//! Both are one byte, and both are 11 bits in HPACK's Huffman code: no length changes, so the compression tables of both sides
//! stay the same, and a value that is sent once and then referred to stays changed. Bytes are changed in place, without a copy.
//! Malformed bytes, and a `|` whose bits are split over two reads, stay unchanged, and h2 refuses them.

mod hpack;

use hpack::BlockState;

/// Bytes of the connection preface before the first frame (RFC 9113, 3.4).
const PREFACE: usize = 24;
/// Bytes of a frame's header.
const HEADER: usize = 9;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// Parses the frames that a client sends, in pieces of any size.
#[derive(Debug)]
pub(super) struct AuthorityFilter {
    /// The header of the present frame.
    header: [u8; HEADER],
    filled: usize,
    /// Bytes to skip: the preface, payloads of other frames, padding.
    skip: usize,
    /// Bytes of a header block before its fields: pad length, priority.
    before: usize,
    /// Bytes of the block in this frame.
    block: usize,
    /// Bytes of padding behind the block.
    padding: usize,
    fields: BlockState,
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
            fields: BlockState::Begin,
        }
    }

    /// Changes bytes that have just been read.
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
                self.fields = BlockState::Begin;
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

#[cfg(test)]
mod tests {
    use super::hpack::BAR;
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
