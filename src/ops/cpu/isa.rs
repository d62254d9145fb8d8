//! Which instructions the kernels use, chosen once.

use std::sync::OnceLock;

/// A set of instructions that there are kernels for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isa {
    /// [`Isa::Avx512`] and dot products of bf16 pairs, for products whose weights are bf16.
    Avx512Bf16,
    /// AVX-512 Foundation, with its byte, word, double-word and short-vector extensions.
    Avx512,
    /// AVX2 and FMA.
    Avx2,
    /// Whatever the compiler makes of plain loops.
    Portable,
}

/// The variable that forces a set: `avx512bf16`, `avx512`, `avx2` or `portable`; for tests and comparisons.
const FORCED: &str = "EASEL_CPU";

impl Isa {
    /// The best set that this processor has, or the lesser one that `EASEL_CPU` names.
    pub fn current() -> Self {
        #[cfg(test)]
        if let Some(isa) = forced::get() {
            return isa;
        }
        static CHOSEN: OnceLock<Isa> = OnceLock::new();
        *CHOSEN.get_or_init(|| {
            let name = std::env::var(FORCED).unwrap_or_default();
            let available = Self::available();
            available.iter().copied().find(|isa| isa.name() == name).unwrap_or(available[0])
        })
    }

    /// Every set that this processor has, best first.
    ///
    /// AMD's cores finish a dot product of bf16 pairs as often as a multiply-add, and so do twice the work with it.
    /// Intel's take as long as for four, so that widening the weights is quicker there. The maker decides, not a clock:
    /// one machine must not draw two pictures for one seed.
    pub fn available() -> Vec<Self> {
        let mut sets = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            if avx2 && avx512 {
                sets.push(Self::Avx512);
                if is_x86_feature_detected!("avx512bf16") {
                    sets.insert(usize::from(!is_amd()), Self::Avx512Bf16);
                }
            }
            if avx2 {
                sets.push(Self::Avx2);
            }
        }
        sets.push(Self::Portable);
        sets
    }

    /// The name that `EASEL_CPU` knows it by.
    pub fn name(self) -> &'static str {
        match self {
            Self::Avx512Bf16 => "avx512bf16",
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::Portable => "portable",
        }
    }
}

/// Whether AMD made the processor.
#[cfg(target_arch = "x86_64")]
fn is_amd() -> bool {
    let leaf = std::arch::x86_64::__cpuid(0);
    [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes).concat() == b"AuthenticAMD"
}

/// Compiles a body once for each set of instructions that has vectors, and runs the one for `$isa`, or `$plain` where there are
/// none. Bodies may ask of the caller what they like, and have the arguments alone.
macro_rules! dispatched {
    ($isa:expr, ($($arg:ident: $ty:ty),*), avx512: $wide:expr, avx2: $narrow:expr, plain: $plain:expr) => {{
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
        unsafe fn avx512($($arg: $ty),*) {
            $wide
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma")]
        unsafe fn avx2($($arg: $ty),*) {
            $narrow
        }
        match $isa {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Isa::available` found the features; the rest is the caller's promise.
            $crate::ops::cpu::isa::Isa::Avx512Bf16 | $crate::ops::cpu::isa::Isa::Avx512 => unsafe {
                avx512($($arg),*)
            },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            $crate::ops::cpu::isa::Isa::Avx2 => unsafe { avx2($($arg),*) },
            _ => $plain,
        }
    }};
}
pub(super) use dispatched;

/// Compiles a function once for each set of instructions, its loops vectorised by the compiler, and calls the right
/// one: `vectorised!(fn name(arguments) => inner)` makes `name(isa, arguments)` of `inner::<FUSED>(arguments)`, which
/// must be `#[inline(always)]`; `FUSED` says whether multiply-add is one instruction.
macro_rules! vectorised {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) => $inner:ident) => {
        $(#[$doc])*
        $vis fn $name(isa: $crate::ops::cpu::isa::Isa, $($arg: $ty),*) {
            $crate::ops::cpu::isa::dispatched!(
                isa,
                ($($arg: $ty),*),
                avx512: $inner::<true>($($arg),*),
                avx2: $inner::<true>($($arg),*),
                plain: $inner::<false>($($arg),*)
            );
        }
    };
}
pub(super) use vectorised;

/// For tests: what [`Isa::current`] says on one thread.
#[cfg(test)]
pub mod forced {
    use super::Isa;
    use std::cell::Cell;

    thread_local! {
        static FORCED: Cell<Option<Isa>> = const { Cell::new(None) };
    }

    pub fn get() -> Option<Isa> {
        FORCED.get()
    }

    /// Lets this thread use a set of instructions from now on.
    pub fn force(isa: Isa) {
        FORCED.set(Some(isa));
    }

    /// Runs `work` with each set of instructions that the processor has.
    pub fn each(mut work: impl FnMut(Isa)) {
        for isa in Isa::available() {
            FORCED.set(Some(isa));
            work(isa);
        }
        FORCED.set(None);
    }
}
