// For tests: authorities and certificates, made on the spot.
#pragma once

#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <memory>
#include <string>

#include "atoll/net/tls_context.h"

namespace reef::testing {

class Identity {
 public:
  struct Wish {
    const Identity* issuer = nullptr;  // null: signed by itself
    bool authority = false;
    long from_s = -3'600;  // from now on
    long until_s = 3'600;
    const char* usage = nullptr;  // extended key usage
    const char* uri = nullptr;    // alternative names, as OpenSSL's configuration spells them
  };

  Identity(const std::string& name, const Wish& wish)
      : key_(EVP_EC_gen("P-256"), EVP_PKEY_free), certificate_(X509_new(), X509_free) {
    static long serial = 0;
    X509* made = certificate_.get();
    X509_set_version(made, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(made), ++serial);
    X509_gmtime_adj(X509_getm_notBefore(made), wish.from_s);
    X509_gmtime_adj(X509_getm_notAfter(made), wish.until_s);
    X509_set_pubkey(made, key_.get());
    X509_NAME_add_entry_by_txt(X509_get_subject_name(made), "CN", MBSTRING_ASC,
                               reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
    const Identity& issuer = wish.issuer == nullptr ? *this : *wish.issuer;
    X509_set_issuer_name(made, X509_get_subject_name(issuer.certificate_.get()));
    extend(NID_basic_constraints, wish.authority ? "critical,CA:TRUE" : "critical,CA:FALSE");
    if (wish.usage != nullptr) {
      extend(NID_ext_key_usage, wish.usage);
    }
    if (wish.uri != nullptr) {
      extend(NID_subject_alt_name, wish.uri);
    }
    EXPECT_GT(X509_sign(made, issuer.key_.get(), EVP_sha256()), 0);
  }

  [[nodiscard]] X509* x509() const { return certificate_.get(); }
  [[nodiscard]] EVP_PKEY* private_key() const { return key_.get(); }
  [[nodiscard]] std::string certificate() const {
    return text([&](BIO* bio) { return PEM_write_bio_X509(bio, certificate_.get()); });
  }
  [[nodiscard]] std::string key() const {
    return text([&](BIO* bio) {
      return PEM_write_bio_PrivateKey(bio, key_.get(), nullptr, nullptr, 0, nullptr, nullptr);
    });
  }
  [[nodiscard]] std::string locked_key() const {
    return text([&](BIO* bio) {
      return PEM_write_bio_PrivateKey(bio, key_.get(), EVP_aes_128_cbc(), nullptr, 0, nullptr,
                                      const_cast<char*>("password"));
    });
  }

 private:
  void extend(int kind, const char* value) {
    X509_EXTENSION* made = X509V3_EXT_conf_nid(nullptr, nullptr, kind, value);
    EXPECT_EQ(X509_add_ext(certificate_.get(), made, -1), 1);
    X509_EXTENSION_free(made);
  }
  template <typename Write>
  static std::string text(Write write) {
    BIO* bio = BIO_new(BIO_s_mem());
    EXPECT_EQ(write(bio), 1);
    char* at = nullptr;
    const long size = BIO_get_mem_data(bio, &at);
    std::string pem(at, static_cast<std::size_t>(size));
    BIO_free(bio);
    return pem;
  }
  std::unique_ptr<EVP_PKEY, void (*)(EVP_PKEY*)> key_;
  std::unique_ptr<X509, void (*)(X509*)> certificate_;
};

inline Identity authority(const std::string& name) {
  return Identity(name, {.authority = true});
}

inline TlsOptions tls_of(const Identity& own, const Identity& trusted) {
  return {own.certificate(), own.key(), trusted.certificate()};
}

}  // namespace reef::testing
