// Operational failures are values. Programmer errors abort through ATOLL's check(). Any thread.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <variant>

namespace reef {

enum class Code : std::uint8_t {
  ok = 0,
  mismatch,         // members disagree about an op
  deadline,         // the op's deadline passed
  aborted,          // aborted by a caller on some member
  closed,           // the engine is closing
  peer_lost,        // exchange or fetch: the partner is gone
  not_member,       // the op was submitted but this peer is in no view
  invalid,          // bad argument
  protocol,         // the other side broke the wire format
  io,               // a system call failed
  wrong_revision,   // fetch: the donor does not hold that revision
  view_changed,     // the op was made for another view than the one that is installed
};

[[nodiscard]] const char* code_name(Code code);

struct Error {
  Code code = Code::ok;
  int sys_errno = 0;
  std::string message;  // one sentence: what was being done, to whom, what happened
};

template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::move(value)) {}         // NOLINT: implicit on purpose
  Result(Error error) : state_(std::move(error)) {}     // NOLINT
  [[nodiscard]] bool ok() const { return std::holds_alternative<T>(state_); }
  explicit operator bool() const { return ok(); }
  [[nodiscard]] T& value() { return std::get<T>(state_); }
  [[nodiscard]] const T& value() const { return std::get<T>(state_); }
  [[nodiscard]] const Error& error() const { return std::get<Error>(state_); }

 private:
  std::variant<T, Error> state_;
};

struct Unit {};
using Status = Result<Unit>;

// Aborts with the sentence when `condition` is false: a bug in this program, not in its input.
void check(bool condition, const char* sentence);

}  // namespace reef
