// The exception and the plain values of atoll._core.
#include <pybind11/stl.h>

#include <string>

#include "binding/convert.h"

namespace reef::binding {

namespace {

PyObject* core_error = nullptr;  // the type CoreError; the module holds it, too

void translate(std::exception_ptr failure) {
  try {
    if (failure) {
      std::rethrow_exception(failure);
    }
  } catch (const CoreFailure& refused) {
    const py::object type = py::reinterpret_borrow<py::object>(core_error);
    py::object error = type(refused.error.message);
    error.attr("code") = code_name(refused.error.code);
    error.attr("sys_errno") = refused.error.sys_errno;
    PyErr_SetObject(core_error, error.ptr());
  }
}

py::dict from_progress(const Progress& progress) {
  py::dict dict;
  for (const auto& [channel, counters] : progress) {
    dict[py::int_(channel)] =
        py::make_tuple(counters.started, counters.done, counters.committed);
  }
  return dict;
}

void define_events(py::module_& module) {
  const auto link_up = py::class_<LinkUp>(module, "LinkUp", py::is_final())
      .def_property_readonly("peer", [](const LinkUp& event) { return from_peer(event.peer); })
      .def("__repr__",
           [](const LinkUp& event) { return "LinkUp(peer=" + event.peer.shorthand() + ")"; });
  const auto link_down = py::class_<LinkDown>(module, "LinkDown", py::is_final())
      .def_property_readonly("peer", [](const LinkDown& event) { return from_peer(event.peer); })
      .def_property_readonly("reason",
                             [](const LinkDown& event) { return link_end_name(event.reason); })
      .def_readonly("message", &LinkDown::message)
      .def("__repr__", [](const LinkDown& event) {
        return "LinkDown(peer=" + event.peer.shorthand() +
               ", reason=" + link_end_name(event.reason) + ", message=" + event.message + ")";
      });
  const auto refused = py::class_<Refused>(module, "Refused", py::is_final())
      .def_readonly("message", &Refused::message)
      .def("__repr__",
           [](const Refused& event) { return "Refused(message=" + event.message + ")"; });
  const auto not_local = py::class_<NotLocal>(module, "NotLocal", py::is_final())
      .def_property_readonly("peer", [](const NotLocal& event) { return from_peer(event.peer); })
      .def_readonly("message", &NotLocal::message)
      .def("__repr__",
           [](const NotLocal& event) { return "NotLocal(message=" + event.message + ")"; });
  const auto fenced = py::class_<Fenced>(module, "Fenced", py::is_final())
      .def_readonly("attempt", &Fenced::attempt)
      .def_readonly("epoch", &Fenced::epoch)
      .def_property_readonly("progress",
                             [](const Fenced& event) { return from_progress(event.progress); })
      .def("__repr__", [](const Fenced& event) {
        return "Fenced(attempt=" + std::to_string(event.attempt) +
               ", epoch=" + std::to_string(event.epoch) + ")";
      });
  const auto installed = py::class_<Installed>(module, "Installed", py::is_final())
      .def_readonly("epoch", &Installed::epoch)
      .def_readonly("member", &Installed::member)
      .def("__repr__", [](const Installed& event) {
        return "Installed(epoch=" + std::to_string(event.epoch) +
               ", member=" + (event.member ? "True" : "False") + ")";
      });
  const auto offered = py::class_<Offered>(module, "Offered", py::is_final())
      .def_property_readonly("peer", [](const Offered& event) { return from_peer(event.peer); })
      .def_readonly("channel", &Offered::channel)
      .def_readonly("tag", &Offered::tag)
      .def("__repr__", [](const Offered& event) {
        return "Offered(peer=" + event.peer.shorthand() +
               ", channel=" + std::to_string(event.channel) +
               ", tag=" + std::to_string(event.tag) + ")";
      });
  const auto op_ended = py::class_<OpEnded>(module, "OpEnded", py::is_final())
      .def_readonly("op", &OpEnded::op)
      .def("__repr__",
           [](const OpEnded& event) { return "OpEnded(op=" + std::to_string(event.op) + ")"; });
  module.attr("Event") = link_up | link_down | refused | not_local | fenced | installed | offered |
                         op_ended;
}

}  // namespace

void define_exception(py::module_& module) {
  core_error = PyErr_NewExceptionWithDoc(
      "atoll._core.CoreError",
      "A native call was refused. `code` is one of the names of reef::Code.", nullptr, nullptr);
  if (core_error == nullptr) {
    throw py::error_already_set();
  }
  const auto type = py::reinterpret_borrow<py::object>(core_error);
  type.attr("code") = "invalid";
  type.attr("sys_errno") = 0;
  module.attr("CoreError") = type;
  py::register_local_exception_translator(translate);
}

void define_values(py::module_& module) {
  module.attr("NEVER_NS") = kNever;
  py::class_<Outcome>(module, "Outcome", py::is_final())
      .def_property_readonly("code", [](const Outcome& outcome) { return code_name(outcome.code); })
      .def_readonly("message", &Outcome::message)
      .def_readonly("epoch", &Outcome::epoch)
      .def_readonly("sequence", &Outcome::sequence)
      .def_readonly("revision", &Outcome::revision)
      .def_readonly("elapsed_ns", &Outcome::elapsed)
      .def_readonly("bytes_per_s", &Outcome::bytes_per_s)
      .def_readonly("round_trip_ns", &Outcome::round_trip)
      .def_property_readonly("plan",
                             [](const Outcome& outcome) {
                               const Plan plan = outcome.summary.plan;
                               return plan == Plan::none ? "" : plan_name(plan);
                             })
      .def_property_readonly("chunk_bytes",
                             [](const Outcome& outcome) { return outcome.summary.chunk_bytes; })
      .def_property_readonly("members",
                             [](const Outcome& outcome) { return outcome.summary.members; })
      .def_property_readonly("contributors",
                             [](const Outcome& outcome) { return outcome.summary.contributors; })
      .def_property_readonly("total_weight",
                             [](const Outcome& outcome) { return outcome.summary.total_weight; })
      .def_property_readonly("weights",
                             [](const Outcome& outcome) { return outcome.summary.weights; })
      .def_property_readonly("notes",
                             [](const Outcome& outcome) { return outcome.summary.notes; })
      .def_property_readonly(
          "non_finite", [](const Outcome& outcome) { return outcome.summary.encoded.non_finite; })
      .def_property_readonly(
          "saturated", [](const Outcome& outcome) { return outcome.summary.encoded.saturated; })
      .def("__repr__", [](const Outcome& outcome) {
        return std::string("Outcome(code=") + code_name(outcome.code) +
               ", message=" + outcome.message + ")";
      });
  py::class_<LinkStats>(module, "LinkStats", py::is_final())
      .def_property_readonly("peer", [](const LinkStats& stats) { return from_peer(stats.peer); })
      .def_readonly("up", &LinkStats::up)
      .def_property_readonly("relay",
                             [](const LinkStats& stats) {
                               return stats.relay ? from_peer(*stats.relay) : py::bytes();
                             })
      .def_property_readonly(
          "transport", [](const LinkStats& stats) { return transport_name(stats.transport); })
      .def_readonly("connections", &LinkStats::connections)
      .def_readonly("expected_bytes_per_s", &LinkStats::expected_bytes_per_s)
      .def_readonly("delivered_bytes_per_s", &LinkStats::delivered_bytes_per_s)
      .def_readonly("pace_bytes_per_s", &LinkStats::pace_bytes_per_s)
      .def_readonly("repairs", &LinkStats::repairs)
      .def_readonly("damaged_frames", &LinkStats::damaged_frames)
      .def_readonly("sent_bytes", &LinkStats::sent_bytes)
      .def_readonly("received_bytes", &LinkStats::received_bytes)
      .def_readonly("sending_ns", &LinkStats::sending)
      .def_readonly("receiving_ns", &LinkStats::receiving)
      .def_readonly("round_trip_ns", &LinkStats::round_trip)
      .def_readonly("retransmitted", &LinkStats::retransmitted);
  py::class_<EngineStats> stats(module, "EngineStats", py::is_final());
  stats.def_readonly("links", &EngineStats::links)
      .def_readonly("rejected_bad_hello", &EngineStats::rejected_bad_hello)
      .def_readonly("rejected_garbage", &EngineStats::rejected_garbage)
      .def_readonly("rejected_timeout", &EngineStats::rejected_timeout)
      .def_readonly("rejected_overload", &EngineStats::rejected_overload)
      .def_readonly("rejected_tls", &EngineStats::rejected_tls)
      .def_readonly("rejected_name", &EngineStats::rejected_name)
      .def_readonly("protocol_errors", &EngineStats::protocol_errors)
      .def_readonly("donated_bytes", &EngineStats::donated_bytes)
      .def_readonly("shared_memory_failures", &EngineStats::shared_memory_failures);
  const auto relay = [&stats](const char* name, std::uint64_t RelayTally::*field) {
    stats.def_property_readonly(name,
                                [field](const EngineStats& of) { return of.relay.*field; });
  };
  relay("relay_pairs", &RelayTally::pairs);
  relay("relay_connections", &RelayTally::connections);
  relay("relay_connections_made", &RelayTally::total);
  relay("relay_bytes", &RelayTally::bytes);
  relay("relay_refused", &RelayTally::refused);
  const auto tally = [&stats](const char* name, std::uint64_t Core::Tally::*field) {
    stats.def_property_readonly(name,
                                [field](const EngineStats& of) { return of.core.*field; });
  };
  tally("stale_frames", &Core::Tally::stale_frames);
  tally("early_frames", &Core::Tally::early_frames);
  tally("ops_committed", &Core::Tally::ops_committed);
  tally("ops_failed", &Core::Tally::ops_failed);
  tally("ops_rerun", &Core::Tally::ops_rerun);
  stats.def_property_readonly("payload_bytes", [](const EngineStats& of) {
    py::dict bytes;
    for (std::size_t id = 0; id < kCodecs; ++id) {
      bytes[codec_name(static_cast<CodecId>(id))] = of.core.payload_bytes[id];
    }
    return bytes;
  });
  define_events(module);
}

}  // namespace reef::binding
