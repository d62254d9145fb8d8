//! The names of samplers and schedules: ComfyUI's, with those of A1111 and diffusers as aliases.

use std::fmt;
use std::str::FromStr;

/// The numerical method that carries latents from one sigma to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SamplerKind {
    /// Euler's method on the probability-flow ODE.
    Euler,
    /// Euler with fresh noise at each step.
    EulerAncestral,
    /// Heun's method, two evaluations a step.
    Heun,
    /// DPM-Solver-2: an evaluation at the middle of the step.
    Dpm2,
    /// DPM-Solver-2 with fresh noise at each step.
    Dpm2Ancestral,
    /// Linear multistep (Adams-Bashforth) of order four.
    Lms,
    /// DPM-Solver++(2S) with fresh noise at each step.
    DpmPp2sAncestral,
    /// The stochastic DPM-Solver++, two evaluations a step.
    DpmPpSde,
    /// DPM-Solver++(2M), one evaluation a step.
    DpmPp2m,
    /// The stochastic DPM-Solver++(2M).
    DpmPp2mSde,
    /// The stochastic DPM-Solver++(3M).
    DpmPp3mSde,
    /// The ancestral sampler of the DDPM paper.
    Ddpm,
    /// DDIM with eta 0.
    Ddim,
    /// UniPC of order two, predictor and corrector.
    UniPc,
    /// The sampler of latent consistency models.
    Lcm,
}

/// The rule that chooses the sigmas a sampler visits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ScheduleKind {
    /// ComfyUI's: timesteps equally spaced from the last to the first.
    Normal,
    /// Karras et al. 2022: equal steps in sigma^(1/7).
    Karras,
    /// Equal steps in log sigma.
    Exponential,
    /// Stability's: equally spaced timesteps that leave out the smallest.
    SgmUniform,
    /// Every k-th entry of the training table, from its end.
    Simple,
    /// Every k-th entry of the training table, from its beginning, as DDIM's authors did.
    DdimUniform,
    /// Timesteps at the quantiles of Beta(0.6, 0.6).
    Beta,
    /// diffusers' `leading` spacing.
    Leading,
    /// diffusers' `trailing` spacing.
    Trailing,
    /// diffusers' `linspace` spacing.
    Linspace,
}

/// A name that no sampler, schedule or prediction type bears. Its text lists the known ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownName {
    what: &'static str,
    given: String,
    known: Vec<&'static str>,
}

impl UnknownName {
    /// The refusal of `given` where a name of the sort `what` was due.
    pub(super) fn new(what: &'static str, given: &str, known: Vec<&'static str>) -> Self {
        Self { what, given: given.chars().take(64).collect(), known }
    }
}

impl fmt::Display for UnknownName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown {} {:?}; known: {}", self.what, self.given, self.known.join(", "))
    }
}

impl std::error::Error for UnknownName {}

impl SamplerKind {
    /// Every sampler, in the order in which lists show them.
    pub const ALL: &[Self] = &[
        Self::Euler,
        Self::EulerAncestral,
        Self::Heun,
        Self::Dpm2,
        Self::Dpm2Ancestral,
        Self::Lms,
        Self::DpmPp2sAncestral,
        Self::DpmPpSde,
        Self::DpmPp2m,
        Self::DpmPp2mSde,
        Self::DpmPp3mSde,
        Self::Ddpm,
        Self::Ddim,
        Self::UniPc,
        Self::Lcm,
    ];

    /// ComfyUI's name, the one this program writes.
    pub fn name(self) -> &'static str {
        self.names()[0]
    }

    /// The name followed by its aliases: A1111's, then diffusers' class, all folded by [`fold`] but the
    /// first.
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::Euler => &["euler", "eulerdiscretescheduler"],
            Self::EulerAncestral => &["euler_ancestral", "euler a", "eulerancestraldiscretescheduler"],
            Self::Heun => &["heun", "heundiscretescheduler"],
            Self::Dpm2 => &["dpm_2", "dpm2", "kdpm2discretescheduler"],
            Self::Dpm2Ancestral => &["dpm_2_ancestral", "dpm2 a", "kdpm2ancestraldiscretescheduler"],
            Self::Lms => &["lms", "lmsdiscretescheduler"],
            Self::DpmPp2sAncestral => &["dpmpp_2s_ancestral", "dpm++ 2s a"],
            Self::DpmPpSde => &["dpmpp_sde", "dpm++ sde", "dpmpp sde gpu", "dpmsolversdescheduler"],
            Self::DpmPp2m => &["dpmpp_2m", "dpm++ 2m", "dpmsolvermultistepscheduler"],
            Self::DpmPp2mSde => &["dpmpp_2m_sde", "dpm++ 2m sde", "dpmpp 2m sde gpu"],
            Self::DpmPp3mSde => &["dpmpp_3m_sde", "dpm++ 3m sde", "dpmpp 3m sde gpu"],
            Self::Ddpm => &["ddpm", "ddpmscheduler"],
            Self::Ddim => &["ddim", "ddimscheduler"],
            Self::UniPc => &["uni_pc", "unipc", "uni pc bh2", "unipcmultistepscheduler"],
            Self::Lcm => &["lcm", "lcmscheduler"],
        }
    }
}

impl ScheduleKind {
    /// Every schedule, in the order in which lists show them.
    pub const ALL: &[Self] = &[
        Self::Normal,
        Self::Karras,
        Self::Exponential,
        Self::SgmUniform,
        Self::Simple,
        Self::DdimUniform,
        Self::Beta,
        Self::Leading,
        Self::Trailing,
        Self::Linspace,
    ];

    /// ComfyUI's name, or diffusers' for its three spacings: the one this program writes.
    pub fn name(self) -> &'static str {
        self.names()[0]
    }

    /// The name followed by its aliases, folded by [`fold`] but the first.
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::Normal => &["normal", "uniform"],
            Self::Karras => &["karras"],
            Self::Exponential => &["exponential"],
            Self::SgmUniform => &["sgm_uniform"],
            Self::Simple => &["simple"],
            Self::DdimUniform => &["ddim_uniform", "ddim"],
            Self::Beta => &["beta"],
            Self::Leading => &["leading"],
            Self::Trailing => &["trailing"],
            Self::Linspace => &["linspace"],
        }
    }
}

impl fmt::Display for SamplerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for ScheduleKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for SamplerKind {
    type Err = UnknownName;

    /// Reads a name or alias in any case, with spaces, hyphens and underscores taken as equal.
    fn from_str(text: &str) -> Result<Self, UnknownName> {
        find(Self::ALL, Self::names, text).ok_or_else(|| {
            UnknownName::new("sampler", text, Self::ALL.iter().map(|kind| kind.name()).collect())
        })
    }
}

impl FromStr for ScheduleKind {
    type Err = UnknownName;

    /// Reads a name or alias in any case, with spaces, hyphens and underscores taken as equal.
    fn from_str(text: &str) -> Result<Self, UnknownName> {
        find(Self::ALL, Self::names, text).ok_or_else(|| {
            UnknownName::new("schedule", text, Self::ALL.iter().map(|kind| kind.name()).collect())
        })
    }
}

/// Reads a sampler's name with, perhaps, a schedule's name after it, as A1111 once wrote them: `DPM++ 2M
/// Karras`.
///
/// # Errors
/// When the text is neither a sampler nor a sampler followed by a schedule.
pub fn parse_pair(text: &str) -> Result<(SamplerKind, Option<ScheduleKind>), UnknownName> {
    let whole = match text.parse() {
        Ok(sampler) => return Ok((sampler, None)),
        Err(unknown) => unknown,
    };
    let separators = text.char_indices().filter(|&(_, c)| is_separator(c));
    for (at, separator) in separators {
        let (before, after) = (&text[..at], &text[at + separator.len_utf8()..]);
        if let (Ok(sampler), Ok(schedule)) = (before.parse(), after.parse()) {
            return Ok((sampler, Some(schedule)));
        }
    }
    Err(whole)
}

/// The kind among `all` that bears the name `text`, compared after [`fold`].
fn find<K: Copy>(all: &[K], names: fn(K) -> &'static [&'static str], text: &str) -> Option<K> {
    let wanted = fold(text);
    all.iter().copied().find(|&kind| names(kind).iter().any(|name| fold(name) == wanted))
}

/// Lower case, with each run of spaces, hyphens and underscores made one space and none at the ends.
fn fold(text: &str) -> String {
    let words: Vec<&str> = text.split(is_separator).filter(|word| !word.is_empty()).collect();
    words.join(" ").to_lowercase()
}

fn is_separator(c: char) -> bool {
    c.is_whitespace() || c == '_' || c == '-'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_reads_back_as_its_own_kind_in_any_case() {
        for &kind in SamplerKind::ALL {
            assert_eq!(kind.name().to_uppercase().parse(), Ok(kind));
            assert_eq!(kind.to_string(), kind.name());
        }
        for &kind in ScheduleKind::ALL {
            assert_eq!(kind.name().to_uppercase().parse(), Ok(kind));
            assert_eq!(kind.to_string(), kind.name());
        }
    }

    #[test]
    fn the_written_names_are_the_ones_the_design_fixes() {
        let samplers: Vec<_> = SamplerKind::ALL.iter().map(|kind| kind.name()).collect();
        assert_eq!(
            samplers.join(" "),
            "euler euler_ancestral heun dpm_2 dpm_2_ancestral lms dpmpp_2s_ancestral dpmpp_sde dpmpp_2m \
             dpmpp_2m_sde dpmpp_3m_sde ddpm ddim uni_pc lcm"
        );
        let schedules: Vec<_> = ScheduleKind::ALL.iter().map(|kind| kind.name()).collect();
        assert_eq!(
            schedules.join(" "),
            "normal karras exponential sgm_uniform simple ddim_uniform beta leading trailing linspace"
        );
    }

    #[test]
    fn no_two_kinds_share_a_name_or_alias() {
        let samplers: Vec<_> = SamplerKind::ALL.iter().flat_map(|kind| kind.names()).collect();
        let schedules: Vec<_> = ScheduleKind::ALL.iter().flat_map(|kind| kind.names()).collect();
        for names in [samplers, schedules] {
            let folded: std::collections::HashSet<_> = names.iter().map(|name| fold(name)).collect();
            assert_eq!(folded.len(), names.len());
        }
    }

    #[test]
    fn names_of_a1111_and_diffusers_are_aliases() {
        let cases = [
            ("Euler", SamplerKind::Euler),
            ("Euler a", SamplerKind::EulerAncestral),
            ("DPM2", SamplerKind::Dpm2),
            ("DPM2 a", SamplerKind::Dpm2Ancestral),
            ("DPM++ 2S a", SamplerKind::DpmPp2sAncestral),
            ("DPM++ SDE", SamplerKind::DpmPpSde),
            ("DPM++ 2M", SamplerKind::DpmPp2m),
            ("dpm++ 2m sde", SamplerKind::DpmPp2mSde),
            ("DPM++ 3M SDE", SamplerKind::DpmPp3mSde),
            ("UniPC", SamplerKind::UniPc),
            ("EulerDiscreteScheduler", SamplerKind::Euler),
            ("EulerAncestralDiscreteScheduler", SamplerKind::EulerAncestral),
            ("HeunDiscreteScheduler", SamplerKind::Heun),
            ("KDPM2DiscreteScheduler", SamplerKind::Dpm2),
            ("KDPM2AncestralDiscreteScheduler", SamplerKind::Dpm2Ancestral),
            ("LMSDiscreteScheduler", SamplerKind::Lms),
            ("DPMSolverSDEScheduler", SamplerKind::DpmPpSde),
            ("DPMSolverMultistepScheduler", SamplerKind::DpmPp2m),
            ("DDPMScheduler", SamplerKind::Ddpm),
            ("DDIMScheduler", SamplerKind::Ddim),
            ("UniPCMultistepScheduler", SamplerKind::UniPc),
            ("LCMScheduler", SamplerKind::Lcm),
        ];
        for (text, kind) in cases {
            assert_eq!(text.parse(), Ok(kind), "{text}");
        }
        assert_eq!("SGM Uniform".parse(), Ok(ScheduleKind::SgmUniform));
    }

    #[test]
    fn a_pair_is_a_sampler_with_or_without_a_schedule() {
        let pair = |text| parse_pair(text).map_err(|e| e.to_string());
        assert_eq!(pair("DPM++ 2M Karras"), Ok((SamplerKind::DpmPp2m, Some(ScheduleKind::Karras))));
        assert_eq!(pair("DPM++ 2M SDE"), Ok((SamplerKind::DpmPp2mSde, None)));
        assert_eq!(
            pair("DPM++ 2M SDE Exponential"),
            Ok((SamplerKind::DpmPp2mSde, Some(ScheduleKind::Exponential)))
        );
        assert_eq!(pair("Euler SGM Uniform"), Ok((SamplerKind::Euler, Some(ScheduleKind::SgmUniform))));
        assert_eq!(pair("DPM2 a Karras"), Ok((SamplerKind::Dpm2Ancestral, Some(ScheduleKind::Karras))));
        assert_eq!(pair("uni_pc"), Ok((SamplerKind::UniPc, None)));
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_list_of_the_known() {
        for text in ["", " ", "eulr", "Karras", "DPM++ 2M Korras", "Karras Euler", "é_ü"] {
            let message = parse_pair(text).expect_err(text).to_string();
            assert!(message.contains("dpmpp_2m_sde, dpmpp_3m_sde"), "{message}");
        }
        let message = "x".repeat(5000).parse::<ScheduleKind>().expect_err("no such name").to_string();
        assert!(message.contains("sgm_uniform") && message.len() < 300, "{message}");
    }
}
