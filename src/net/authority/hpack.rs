//! Parses header blocks (RFC 7541): finds the value of `:authority` and changes each `|` in it.

/// `:authority` in HPACK's static table.
const AUTHORITY: usize = 1;
/// HPACK's Huffman codes by their length in bits: the length, the first code, and the number of codes. No character of a host or
/// cluster name has a longer one.
const CODES: [(u32, u32, u32); 6] = [
    (5, 0, 10),
    (6, 20, 26),
    (7, 92, 32),
    (8, 248, 6),
    (10, 1016, 5),
    (11, 2042, 3),
];
/// The code of `|`; that of `+` differs in its last three bits.
pub(super) const BAR: u32 = 2044;
const LONGEST: u32 = 11;

/// The parser's state: what the next byte of a header block is (RFC 7541, 6).
#[derive(Debug, Clone, Copy)]
pub(super) enum BlockState {
    /// A field begins.
    Begin,
    /// A number continues.
    Number { so_far: usize, shift: u32, of: Number },
    /// A text begins.
    Text { of: Literal },
    /// Bytes of a text to skip.
    Skip { left: usize, of: Literal },
    /// Bytes of an authority without Huffman code.
    Plain { left: usize },
    /// Bytes of an authority in Huffman code; `code` and `bits` are of the present code.
    Huffman { left: usize, code: u32, bits: u32 },
    /// The block is malformed: its rest cannot be parsed.
    Lost,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Number {
    /// A field by its index in a table, or a table's size; no text follows.
    Whole,
    /// The index of a name, or 0; a value follows.
    Name,
    /// The length of a text.
    Length { of: Literal, is_huffman: bool },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Literal {
    Name,
    Value,
    Authority,
}

impl BlockState {
    /// Changes these bytes of a header block, and returns the state after them.
    pub(super) fn pass(mut self, mut bytes: &mut [u8]) -> Self {
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
    const fn begin(self, byte: u8, mask: u8) -> BlockState {
        match byte & mask {
            full if full == mask => BlockState::Number {
                so_far: mask as usize,
                shift: 0,
                of: self,
            },
            number => self.end(number as usize),
        }
    }

    const fn go_on(self, so_far: usize, shift: u32, byte: u8) -> BlockState {
        // Larger numbers are longer than any header block.
        if shift > 21 {
            return BlockState::Lost;
        }
        let so_far = so_far + (((byte & 0x7f) as usize) << shift);
        match byte & 0x80 {
            0 => self.end(so_far),
            _ => BlockState::Number {
                so_far,
                shift: shift + 7,
                of: self,
            },
        }
    }

    const fn end(self, number: usize) -> BlockState {
        match self {
            Self::Whole => BlockState::Begin,
            Self::Name => BlockState::Text {
                of: match number {
                    0 => Literal::Name,
                    AUTHORITY => Literal::Authority,
                    _ => Literal::Value,
                },
            },
            Self::Length { of, .. } if number == 0 => of.end(),
            Self::Length {
                of: Literal::Authority,
                is_huffman: true,
            } => BlockState::Huffman {
                left: number,
                code: 0,
                bits: 0,
            },
            Self::Length {
                of: Literal::Authority, ..
            } => BlockState::Plain { left: number },
            Self::Length { of, .. } => BlockState::Skip { left: number, of },
        }
    }
}

impl Literal {
    /// The state after it.
    const fn end(self) -> BlockState {
        match self {
            Self::Name => BlockState::Text { of: Self::Value },
            Self::Value | Self::Authority => BlockState::Begin,
        }
    }
}

/// Decodes these bytes; `left` more bytes of the same text follow.
fn decode(bytes: &mut [u8], left: usize, mut code: u32, mut bits: u32) -> BlockState {
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
                // A longer code, which no name has: the rest of the text is skipped.
                return match left {
                    0 => BlockState::Begin,
                    left => BlockState::Skip {
                        left,
                        of: Literal::Value,
                    },
                };
            }
        }
    }
    match left {
        0 => BlockState::Begin,
        left => BlockState::Huffman { left, code, bits },
    }
}

/// Inverts the last three bits of the code that ends at this bit of this byte.
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
