//! What a cell makes of its gates, in one register of units.

#![expect(unsafe_code, reason = "vector instructions; the trait states their contract")]

#[cfg(target_arch = "x86_64")]
use super::super::lanes::Lanes;

/// Where the numbers of one register of units lie.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// What is added to the recurrent product of a GRU's n.
    pub(super) new_bias: *const f32,
    /// The state before the step.
    pub(super) now: *const f32,
    /// An LSTM's memory.
    pub(super) memory: *mut f32,
}

/// The arithmetic of a cell of `G` gates.
///
/// # Safety
/// [`Arithmetic::state`] touches no memory but the register of numbers that each pointer of its place
/// leads to: a GRU reads bias and state, an LSTM reads and writes the memory.
pub(super) unsafe trait Arithmetic<const G: usize> {
    /// The state after a step, of the products of the state before it and what the input adds to them.
    ///
    /// # Safety
    /// The instructions of `V`, and numbers at the pointers that the cell uses.
    unsafe fn state<V: Lanes>(recurrent: [V; G], input: [V; G], place: Place) -> V;
}

/// See [`Kind::Gru`](super::Kind::Gru).
pub(super) struct Gru;

// SAFETY: one load at each of two pointers.
unsafe impl Arithmetic<3> for Gru {
    #[inline(always)]
    unsafe fn state<V: Lanes>(recurrent: [V; 3], input: [V; 3], place: Place) -> V {
        // SAFETY: the caller's.
        unsafe {
            let z = input[0].add(recurrent[0]).sigmoid();
            let r = input[1].add(recurrent[1]).sigmoid();
            let new = r.mul_add(recurrent[2].add(V::load(place.new_bias)), input[2]).tanh();
            z.mul_add(V::load(place.now).sub(new), new)
        }
    }
}

/// See [`Kind::Lstm`](super::Kind::Lstm).
pub(super) struct Lstm;

// SAFETY: one load and one store at the memory.
unsafe impl Arithmetic<4> for Lstm {
    #[inline(always)]
    unsafe fn state<V: Lanes>(recurrent: [V; 4], input: [V; 4], place: Place) -> V {
        // SAFETY: the caller's.
        unsafe {
            let i = input[0].add(recurrent[0]).sigmoid();
            let o = input[1].add(recurrent[1]).sigmoid();
            let f = input[2].add(recurrent[2]).sigmoid();
            let new = input[3].add(recurrent[3]).tanh();
            let memory = f.mul_add(V::load(place.memory), i.mul(new));
            memory.store(place.memory);
            o.mul(memory.tanh())
        }
    }
}
