//! The agents' face, as osquery and as those who only pretend to be osquery use it.

mod bed;
mod campaigns;
mod faulty;
mod hosts;
mod identity;
mod refusals;
