//! Large blocks that were freed last, for the next that need as much: their lines are in a cache still, where those of any other
//! free block would come from memory, and go there again.

use std::ops::RangeInclusive;

/// Bytes that a block must be asked for with: larger ones no cache holds.
const SIZES: RangeInclusive<usize> = 1 << 20..=32 << 20;
/// The most blocks; the others are free for good.
const MOST: usize = 8;
/// A block may have so much more than was asked for: this part of it.
const SPARE: usize = 4;

/// A free block.
#[derive(Debug, Clone, Copy)]
struct Block {
    address: usize,
    bytes: usize,
}

/// Free blocks, the last freed last, while it is open.
#[derive(Debug)]
pub struct Recent {
    open: bool,
    blocks: [Block; MOST],
    count: usize,
}

impl Recent {
    /// None, and closed.
    pub const fn new() -> Self {
        Self { open: false, blocks: [Block { address: 0, bytes: 0 }; MOST], count: 0 }
    }

    /// Keeps what is freed from now on.
    pub fn open(&mut self) {
        self.open = true;
    }

    /// Keeps nothing any more. The addresses are those of the blocks that were kept, if it was open.
    pub fn close(&mut self) -> Option<impl Iterator<Item = usize> + use<>> {
        let were_open = std::mem::take(&mut self.open);
        let count = std::mem::take(&mut self.count);
        were_open.then_some(self.blocks.into_iter().take(count).map(|block| block.address))
    }

    /// The address of the block that was freed last of those that suit, which is no longer kept.
    pub fn take(&mut self, size: usize, align: usize) -> Option<usize> {
        if !SIZES.contains(&size) {
            return None;
        }
        let suits = |block: &Block| {
            (size..=size + size / SPARE).contains(&block.bytes) && block.address.is_multiple_of(align)
        };
        let at = self.blocks[..self.count].iter().rposition(suits)?;
        let Block { address, .. } = self.blocks[at];
        self.remove(at);
        Some(address)
    }

    /// Keeps a block of so many `bytes`, which was asked for with `size`. The address is that of the block to be freed for it, if any:
    /// the oldest, or itself if it is not kept.
    pub fn keep(&mut self, address: usize, size: usize, bytes: usize) -> Option<usize> {
        if !self.open || !SIZES.contains(&size) {
            return Some(address);
        }
        let oldest = (self.count == MOST).then(|| {
            let Block { address, .. } = self.blocks[0];
            self.remove(0);
            address
        });
        self.blocks[self.count] = Block { address, bytes };
        self.count += 1;
        oldest
    }

    fn remove(&mut self, at: usize) {
        self.blocks.copy_within(at + 1..self.count, at);
        self.count -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    /// Open, with blocks of so many MiB at addresses 1, 2, ...
    fn with(sizes: &[usize]) -> Recent {
        let mut recent = Recent::new();
        recent.open();
        for (address, size) in (1..).zip(sizes) {
            assert_eq!(recent.keep(address, size * MIB, size * MIB), None);
        }
        recent
    }

    #[test]
    fn the_block_freed_last_of_those_that_suit_is_taken_first() {
        let mut recent = with(&[4, 5, 6, 4, 3]);
        assert_eq!([(); 4].map(|()| recent.take(4 * MIB, 1)), [Some(4), Some(2), Some(1), None]);
        assert_eq!(recent.take(3 * MIB, 4), None, "the address 5 is not aligned");
        assert_eq!([6 * MIB, 3 * MIB].map(|size| recent.take(size, 1)), [Some(3), Some(5)]);
    }

    #[test]
    fn the_oldest_is_freed_for_one_too_many() {
        let mut recent = with(&[2; MOST]);
        assert_eq!(recent.keep(100, 2 * MIB, 2 * MIB), Some(1));
        let kept: Vec<usize> = recent.close().unwrap().collect();
        assert_eq!(kept, [2, 3, 4, 5, 6, 7, 8, 100]);
    }

    #[test]
    fn what_is_closed_and_blocks_too_small_or_too_large_are_left_alone() {
        let mut recent = Recent::new();
        assert_eq!(recent.keep(1, 2 * MIB, 2 * MIB), Some(1));
        assert!(recent.close().is_none());
        recent.open();
        for size in [MIB - 1, 32 * MIB + 1] {
            assert_eq!((recent.keep(1, size, size), recent.take(size, 1)), (Some(1), None));
        }
    }
}
