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
  const auto op_ended = py::class_<OpEnded>(module, "OpEnded", py::is_final())
      .def_readonly("op", &OpEnded::op)
      .def("__repr__",
           [](const OpEnded& event) { return "OpEnded(op=" + std::to_string(event.op) + ")"; });
  module.attr("Event") = link_up | link_down | fenced | installed | op_ended;
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
      .def("__repr__", [](const Outcome& outcome) {
        return std::string("Outcome(code=") + code_name(outcome.code) +
               ", message=" + outcome.message + ")";
      });
  py::class_<LinkStats>(module, "LinkStats", py::is_final())
      .def_property_readonly("peer", [](const LinkStats& stats) { return from_peer(stats.peer); })
      .def_readonly("up", &LinkStats::up)
      .def_readonly("connections", &LinkStats::connections)
      .def_readonly("sent_bytes", &LinkStats::sent_bytes)
      .def_readonly("received_bytes", &LinkStats::received_bytes)
      .def_readonly("sending_ns", &LinkStats::sending)
      .def_readonly("receiving_ns", &LinkStats::receiving);
  py::class_<EngineStats> stats(module, "EngineStats", py::is_final());
  stats.def_readonly("links", &EngineStats::links)
      .def_readonly("rejected_bad_hello", &EngineStats::rejected_bad_hello)
      .def_readonly("rejected_garbage", &EngineStats::rejected_garbage)
      .def_readonly("rejected_timeout", &EngineStats::rejected_timeout)
      .def_readonly("rejected_overload", &EngineStats::rejected_overload)
      .def_readonly("protocol_errors", &EngineStats::protocol_errors)
      .def_readonly("donated_bytes", &EngineStats::donated_bytes);
  const auto tally = [&stats](const char* name, std::uint64_t Core::Tally::*field) {
    stats.def_property_readonly(name,
                                [field](const EngineStats& of) { return of.core.*field; });
  };
  tally("stale_frames", &Core::Tally::stale_frames);
  tally("early_frames", &Core::Tally::early_frames);
  tally("ops_committed", &Core::Tally::ops_committed);
  tally("ops_failed", &Core::Tally::ops_failed);
  tally("ops_rerun", &Core::Tally::ops_rerun);
  define_events(module);
}

}  // namespace reef::binding
